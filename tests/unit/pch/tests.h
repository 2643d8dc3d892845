// Compiled once for each test program, ahead of its files (meson's cpp_pch): half of the time that a file of
// tests takes to compile are these. Files include them all the same.
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <functional>
#include <tl/expected.hpp>
