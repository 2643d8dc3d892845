// Compiled once for each library, ahead of its files (meson's cpp_pch): what nearly all of them include,
// which takes longer to read than they do. Files include it all the same; -Db_pch=false is how one finds out.
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <tl/expected.hpp>
#include <utility>
#include <vector>
