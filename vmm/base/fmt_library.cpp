// fmt's library part, compiled once into a static program: distributions ship it as a shared library and as
// headers. FMT_HEADER_ONLY, set for this file (meson.build), makes the headers define it. Every fmt::format
// ends in fmt::vformat, and what that needs comes along. A use of fmt that needs more does not link, on any
// release.
#include <fmt/format.h>

namespace {

[[gnu::used]] std::string (*const kKept)(fmt::string_view, fmt::format_args) = &fmt::vformat;

}  // namespace
