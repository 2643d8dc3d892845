#include "vmm/cli/roff.h"

namespace snug::cli {
namespace {

std::string literal(std::string_view text) {
  std::string out;
  for (const char c : text) {
    switch (c) {
      case '-':
        out += "\\-";
        break;
      case '\\':
        out += "\\e";
        break;
      case '\'':
        out += "\\(aq";
        break;
      case '`':
        out += "\\(ga";
        break;
      case '^':
        out += "\\(ha";
        break;
      case '~':
        out += "\\(ti";
        break;
      case '"':
        out += "\\(dq";
        break;
      default:
        out += c;
    }
  }
  return out;
}

}  // namespace

std::string roff_text(std::string_view text) { return (text.starts_with('.') ? "\\&" : "") + literal(text); }
std::string roff_bold(std::string_view text) { return "\\fB" + literal(text) + "\\fR"; }
std::string roff_italic(std::string_view text) { return "\\fI" + literal(text) + "\\fR"; }

}  // namespace snug::cli
