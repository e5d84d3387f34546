# The kinds of target that dvdi has: the library of a folder, a test, a program in C for the tests, a fuzz target.

add_library(dvdi_options INTERFACE)
target_include_directories(dvdi_options INTERFACE ${CMAKE_SOURCE_DIR}/src)
target_compile_options(dvdi_options INTERFACE
  -Wall -Wextra -Wpedantic -Wshadow -Wnon-virtual-dtor -Wold-style-cast -Wcast-align
  -Woverloaded-virtual -Wconversion -Wsign-conversion -Wdouble-promotion -Wformat=2
  -Wimplicit-fallthrough -Wnull-dereference -Wunused
  -Wno-missing-field-initializers  # designated initialisers leave members at their defaults on purpose
  $<$<BOOL:${DVDI_WERROR}>:-Werror>
  -fno-omit-frame-pointer)
target_link_libraries(dvdi_options INTERFACE Threads::Threads)
if(DVDI_SANITIZE)
  # -O1 and no null-dereference analysis: GCC 12's flow warnings are wrong on instrumented code.
  target_compile_options(dvdi_options INTERFACE -fsanitize=${DVDI_SANITIZE} -fno-sanitize-recover=all
    "$<$<CXX_COMPILER_ID:GNU>:-Wno-null-dereference;-Wno-maybe-uninitialized>")
  target_link_options(dvdi_options INTERFACE -fsanitize=${DVDI_SANITIZE})
endif()
if(CMAKE_UNITY_BUILD)
  # The sources of a target as one: reading the headers takes most of the time to compile one of them. What they have for
  # themselves is not meant to be seen in the others; the build of each alone (the preset dev) warns of it.
  target_compile_options(dvdi_options INTERFACE -Wno-shadow -Wno-subobject-linkage)
endif()
if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU")
  # False positives of GCC 12 in libstdc++'s own headers at -O2 (GCC bugs 105329, 105651, 98753).
  target_compile_options(dvdi_options INTERFACE -Wno-restrict -Wno-null-dereference)
endif()

# What of OpenSSL needs nothing of the rest of it. Hidden, where a library of a program brings the shared one, too.
find_library(CRYPTO_STATIC libcrypto.a REQUIRED)
add_library(dvdi_crypto_static INTERFACE)
target_link_libraries(dvdi_crypto_static INTERFACE ${CRYPTO_STATIC})
target_link_options(dvdi_crypto_static INTERFACE LINKER:--exclude-libs,libcrypto.a)

# dvdi_starts_fast(NAME)
# A short command: it loads nothing but libc and libm, since relocating the rest takes longer than the command. Their
# static libraries come first, and --as-needed drops the others.
find_library(BOOST_JSON_STATIC libboost_json.a REQUIRED)
find_library(SQLITE_STATIC libsqlite3.a REQUIRED)
find_library(BOOST_CONTAINER_STATIC libboost_container.a REQUIRED)
function(dvdi_starts_fast name)
  if(DVDI_SANITIZE)  # their run-time libraries are in C++
    return()
  endif()
  target_sources(${name} PRIVATE ${CMAKE_SOURCE_DIR}/src/cli/fmt_definitions.cpp)
  target_link_options(${name} PRIVATE
    LINKER:--as-needed,--whole-archive,${BOOST_JSON_STATIC},${BOOST_CONTAINER_STATIC},${SQLITE_STATIC},--no-whole-archive
    -static-libstdc++ -static-libgcc)
endfunction()

# dvdi_library(NAME SOURCES a.cpp ... [LINKS lib ...] [PRIVATE_LINKS lib ...])
# LINKS are what the folder's headers show; PRIVATE_LINKS what only its sources use.
function(dvdi_library name)
  cmake_parse_arguments(ARG "" "" "SOURCES;LINKS;PRIVATE_LINKS" ${ARGN})
  add_library(${name} STATIC ${ARG_SOURCES})
  target_link_libraries(${name} PUBLIC dvdi_options ${ARG_LINKS} PRIVATE ${ARG_PRIVATE_LINKS})
endfunction()

# dvdi_test(NAME SOURCES a_test.cpp ... LINKS lib ... [LABELS ...] [TIMEOUT seconds])
# One program and one ctest entry. A test that needs root skips itself (GTEST_SKIP) where it is not root.
function(dvdi_test name)
  if(NOT DVDI_TESTS)
    return()
  endif()
  cmake_parse_arguments(ARG "" "TIMEOUT" "SOURCES;LINKS;LABELS" ${ARGN})
  if(NOT ARG_TIMEOUT)
    set(ARG_TIMEOUT 300)
  endif()
  add_executable(${name} ${ARG_SOURCES} ${CMAKE_SOURCE_DIR}/tests/test_main.cpp)
  target_link_libraries(${name} PRIVATE dvdi_options GTest::gmock GTest::gtest dvdi_linux ${ARG_LINKS})
  if(DVDI_SANITIZE)
    # Instrumented, what gmock expands to takes twice as long to optimise as to compile.
    target_compile_options(${name} PRIVATE -O0)
  endif()
  set_target_properties(${name} PROPERTIES RUNTIME_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/tests)
  add_test(NAME ${name} COMMAND ${name})
  set_tests_properties(${name} PROPERTIES TIMEOUT ${ARG_TIMEOUT} LABELS "unit;${ARG_LABELS}")
endfunction()

# dvdi_c_program(NAME SOURCES a.c ...)
# A program in C99 that uses libdvdi as anybody's would, in BUILD/programs; the tests run it.
function(dvdi_c_program name)
  cmake_parse_arguments(ARG "" "" "SOURCES" ${ARGN})
  add_executable(${name} ${ARG_SOURCES})
  target_link_libraries(${name} PRIVATE libdvdi Threads::Threads)
  target_compile_options(${name} PRIVATE -Wall -Wextra -Wpedantic $<$<BOOL:${DVDI_WERROR}>:-Werror>)
  if(DVDI_SANITIZE)
    target_compile_options(${name} PRIVATE -fsanitize=${DVDI_SANITIZE} -fno-sanitize-recover=all)
    target_link_options(${name} PRIVATE -fsanitize=${DVDI_SANITIZE})
  endif()
  set_target_properties(${name} PROPERTIES C_STANDARD 99 C_STANDARD_REQUIRED ON C_EXTENSIONS OFF
    RUNTIME_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/programs)
endfunction()

# dvdi_fuzz(NAME_fuzz SOURCES a.cpp ... LINKS lib ...)
# A libFuzzer program, made in the preset "fuzz" only. tools/fuzz runs it on tests/fuzz/corpus/NAME.
if(DVDI_FUZZ)
  add_custom_target(fuzz_targets)
endif()
function(dvdi_fuzz name)
  if(NOT DVDI_FUZZ)
    return()
  endif()
  cmake_parse_arguments(ARG "" "" "SOURCES;LINKS" ${ARGN})
  add_executable(${name} ${ARG_SOURCES})
  target_link_libraries(${name} PRIVATE dvdi_options ${ARG_LINKS})
  target_link_options(${name} PRIVATE -fsanitize=fuzzer)
  set_target_properties(${name} PROPERTIES RUNTIME_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/programs)
  add_dependencies(fuzz_targets ${name})
endfunction()
