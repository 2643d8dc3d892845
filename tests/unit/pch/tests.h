// Compiled once for each test program, ahead of its files (meson's cpp_pch): half of the time that a file of
// tests takes to compile is these two. Files include them all the same.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
