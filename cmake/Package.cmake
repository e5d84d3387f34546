# What is installed, and the Debian package: tools/package builds it. The paths are Debian's, the prefix is /usr.

set(DVDI_MAINTAINER "dvdi maintainers <maintainers@dvdi.example>" CACHE STRING
  "Who answers for the package: NAME <ADDRESS>")

set(CMAKE_SKIP_INSTALL_ALL_DEPENDENCY ON)  # what is installed is built by name, and the tests are no part of it
set(CMAKE_INSTALL_DEFAULT_DIRECTORY_PERMISSIONS OWNER_READ OWNER_WRITE OWNER_EXECUTE GROUP_READ GROUP_EXECUTE
  WORLD_READ WORLD_EXECUTE)
set(doc share/doc/dvdi)
# Where Debian's linker, pkg-config and CMake look: lib/x86_64-linux-gnu.
set(library_dir lib)
if(CMAKE_LIBRARY_ARCHITECTURE)
  set(library_dir lib/${CMAKE_LIBRARY_ARCHITECTURE})
endif()

install(TARGETS dvdi dvdcli RUNTIME DESTINATION bin)
install(TARGETS dvdid RUNTIME DESTINATION sbin)
# libdvdi, and what a program needs to be built with it. A component, so that it can be installed alone, anywhere:
# cmake --install BUILD --component libdvdi --prefix DIR
install(TARGETS libdvdi EXPORT dvdi-targets COMPONENT libdvdi
  LIBRARY DESTINATION ${library_dir} COMPONENT libdvdi NAMELINK_COMPONENT libdvdi)
install(FILES include/dvdi/dvdi.h DESTINATION include/dvdi COMPONENT libdvdi)
install(EXPORT dvdi-targets NAMESPACE dvdi:: DESTINATION ${library_dir}/cmake/dvdi COMPONENT libdvdi)
include(CMakePackageConfigHelpers)
configure_package_config_file(packaging/libdvdi/dvdi-config.cmake.in ${CMAKE_BINARY_DIR}/packaging/dvdi-config.cmake
  INSTALL_DESTINATION ${library_dir}/cmake/dvdi NO_SET_AND_CHECK_MACRO)
write_basic_package_version_file(${CMAKE_BINARY_DIR}/packaging/dvdi-config-version.cmake
  COMPATIBILITY SameMinorVersion)
install(FILES ${CMAKE_BINARY_DIR}/packaging/dvdi-config.cmake ${CMAKE_BINARY_DIR}/packaging/dvdi-config-version.cmake
  DESTINATION ${library_dir}/cmake/dvdi COMPONENT libdvdi)
# Relative, so that the file is right under any prefix.
file(RELATIVE_PATH prefix_from_pc /${library_dir}/pkgconfig /)
string(REGEX REPLACE "/$" "" prefix_from_pc "${prefix_from_pc}")
configure_file(packaging/libdvdi/dvdi.pc.in ${CMAKE_BINARY_DIR}/packaging/dvdi.pc @ONLY)
install(FILES ${CMAKE_BINARY_DIR}/packaging/dvdi.pc DESTINATION ${library_dir}/pkgconfig COMPONENT libdvdi)

install(FILES examples/dvdi.toml DESTINATION /etc/dvdi)
install(FILES packaging/systemd/dvdid.service packaging/systemd/dvdid.socket DESTINATION /lib/systemd/system)
install(FILES packaging/tmpfiles/dvdi.conf DESTINATION lib/tmpfiles.d)
install(FILES packaging/sysusers/dvdi.conf DESTINATION lib/sysusers.d)
install(FILES packaging/prometheus/dvdi.rules.yml packaging/prometheus/dvdi.rules.test.yml packaging/prometheus/scrape.yml
  DESTINATION share/dvdi/prometheus)
foreach(program dvdi dvdcli dvdid)
  install(FILES packaging/completions/${program}.bash DESTINATION share/bash-completion/completions RENAME ${program})
endforeach()
file(GLOB man_pages CONFIGURE_DEPENDS docs/man/*.[1-8])
foreach(page ${man_pages})
  string(REGEX MATCH "[1-8]$" section ${page})
  install(FILES ${page} DESTINATION share/man/man${section})
endforeach()
# As in the tree, so that the links between them lead somewhere.
install(FILES README.md ARCHITECTURE.md DESTINATION ${doc})
install(DIRECTORY docs/ DESTINATION ${doc}/docs PATTERN man EXCLUDE)
install(DIRECTORY examples/ DESTINATION ${doc}/examples)
install(FILES packaging/debian/copyright DESTINATION ${doc})
# Debian has the manual and the changelogs compressed, the same bytes each time.
install(CODE [[
  set(under "$ENV{DESTDIR}${CMAKE_INSTALL_PREFIX}/share")
  string(TIMESTAMP date "%a, %d %b %Y %H:%M:%S +0000" UTC)
]])
install(CODE "
  set(version ${PROJECT_VERSION})
  set(maintainer \"${DVDI_MAINTAINER}\")
  configure_file(${CMAKE_SOURCE_DIR}/packaging/debian/changelog.in \${under}/doc/dvdi/changelog @ONLY)
  configure_file(${CMAKE_SOURCE_DIR}/CHANGELOG.md \${under}/doc/dvdi/CHANGELOG.md COPYONLY)
  file(GLOB pages \${under}/man/man*/dvd*.[1-8])
  execute_process(COMMAND gzip --best --no-name --force \${pages} \${under}/doc/dvdi/changelog
    COMMAND_ERROR_IS_FATAL ANY)
")

set(CPACK_GENERATOR DEB)
set(CPACK_PACKAGE_NAME dvdi)
set(CPACK_PACKAGE_VERSION ${PROJECT_VERSION})
set(CPACK_PACKAGE_CONTACT "${DVDI_MAINTAINER}")
set(CPACK_PACKAGE_DESCRIPTION_SUMMARY "external volumes for the tasks of a Linux node")
set(CPACK_PACKAGE_DESCRIPTION "A task names the volumes that it wants. dvdi has a volume driver (any
Docker volume plugin, or the built-in driver local) mount them, shows
them to the task, releases each after its last user, and records every
step.

This package has the command line dvdi, which works alone; the node
daemon dvdid, which serves any caller on a Unix socket; dvdcli, which the
docker/volume isolator of a Mesos agent starts; and libdvdi, the daemon's
calls from C, with what is needed to build programs with it.")
set(CPACK_STRIP_FILES ON)
set(CPACK_INSTALL_DEFAULT_DIRECTORY_PERMISSIONS ${CMAKE_INSTALL_DEFAULT_DIRECTORY_PERMISSIONS})
set(CPACK_DEBIAN_FILE_NAME DEB-DEFAULT)
set(CPACK_DEBIAN_COMPRESSION_TYPE xz)
set(CPACK_DEBIAN_PACKAGE_SECTION admin)
set(CPACK_DEBIAN_PACKAGE_PRIORITY optional)
set(CPACK_DEBIAN_PACKAGE_SHLIBDEPS ON)
# Loaded when it is first needed (src/http/libcurl.h): nothing of the programs shows it.
set(CPACK_DEBIAN_PACKAGE_DEPENDS "libcurl4")
set(CPACK_DEBIAN_PACKAGE_GENERATE_SHLIBS ON)
set(CPACK_DEBIAN_PACKAGE_GENERATE_SHLIBS_POLICY ">=")
set(CPACK_DEBIAN_PACKAGE_RECOMMENDS "e2fsprogs, xfsprogs")
set(CPACK_DEBIAN_PACKAGE_SUGGESTS "bash-completion, rclone")
set(CPACK_DEBIAN_PACKAGE_CONTROL_STRICT_PERMISSION ON)
foreach(control conffiles postinst prerm postrm triggers)
  list(APPEND CPACK_DEBIAN_PACKAGE_CONTROL_EXTRA ${CMAKE_SOURCE_DIR}/packaging/debian/${control})
endforeach()
include(CPack)
