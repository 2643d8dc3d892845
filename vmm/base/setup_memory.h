// Memory that only setting up needed.
#pragma once

namespace snug {

// Gives it back to the host: what the heap keeps for later, and the pages of the program that have been
// touched so far. Those that are used again come back from the page cache. Any thread; breakpoints of a
// debugger get lost.
void drop_setup_memory();

}  // namespace snug
