#include "http/libcurl.h"

#include <dlfcn.h>
#include <fmt/format.h>

#include <string>

namespace dvdi::http {

namespace {

constexpr const char* file = "libcurl.so.4";

Error unusable(std::string_view why) {
  return Error{.code = Code::unsupported,
               .message = fmt::format("calls over TCP need libcurl: {}", why),
               .hint = "install the package libcurl4",
               .outcome = Outcome::not_sent};
}

std::string last_error() {
  const char* text = ::dlerror();  // of this thread
  return text == nullptr ? "unknown error" : text;
}

template <class Function>
bool find(void* library, const char* name, Function& function) {
  // POSIX lets dlsym() give functions; the language does not know it.
  function = reinterpret_cast<Function>(::dlsym(library, name));
  return function != nullptr;
}

Result<Libcurl> load() {
  void* const library = ::dlopen(file, RTLD_NOW | RTLD_LOCAL);
  if (library == nullptr) return unusable(last_error());
  Libcurl curl;
  const bool found = find(library, "curl_global_init", curl.global_init) &&
                     find(library, "curl_easy_init", curl.easy_init) &&
                     find(library, "curl_easy_cleanup", curl.easy_cleanup) &&
                     find(library, "curl_easy_setopt", curl.easy_setopt) &&
                     find(library, "curl_easy_getinfo", curl.easy_getinfo) &&
                     find(library, "curl_easy_strerror", curl.easy_strerror) &&
                     find(library, "curl_multi_init", curl.multi_init) &&
                     find(library, "curl_multi_cleanup", curl.multi_cleanup) &&
                     find(library, "curl_multi_add_handle", curl.multi_add_handle) &&
                     find(library, "curl_multi_remove_handle", curl.multi_remove_handle) &&
                     find(library, "curl_multi_perform", curl.multi_perform) &&
                     find(library, "curl_multi_info_read", curl.multi_info_read) &&
                     find(library, "curl_multi_poll", curl.multi_poll) &&
                     find(library, "curl_multi_wakeup", curl.multi_wakeup) &&
                     find(library, "curl_slist_append", curl.slist_append) &&
                     find(library, "curl_slist_free_all", curl.slist_free_all);
  if (!found) return unusable(last_error());
  if (curl.global_init(CURL_GLOBAL_DEFAULT) != CURLE_OK) return unusable("it cannot be initialised");
  return curl;
}

}  // namespace

Result<const Libcurl*> libcurl() {
  static const Result<Libcurl> loaded = load();
  if (!loaded) return loaded.error();
  return &*loaded;
}

}  // namespace dvdi::http
