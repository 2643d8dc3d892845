// Text for man(7). Any thread.
#pragma once

#include <string>
#include <string_view>

namespace snug::cli {

// With nothing in it that troff takes for its own. In words that a person may type ("--memory", "vm.yaml") a
// hyphen stays the character that it is.
std::string roff_text(std::string_view text);
// A literal word, such as a flag.
std::string roff_bold(std::string_view text);
// A word to be replaced.
std::string roff_italic(std::string_view text);

}  // namespace snug::cli
