// Cases of POSIX, carried out in two places of one guest: tmpfs, and a share. See posix.c.
#pragma once

#include <stdarg.h>
#include <stddef.h>

enum { kSlots = 16, kArguments = 12, kText = 4096 };

// --- operations ------------------------------------------------------------------------------------------
// What an actor has open, and what operations have to say, each one line.
extern int slots[kSlots];
extern char said[kText];

struct Step {
  const char* name;
  int fewest, most;  // arguments
  void (*run)(char** arguments);
};
// Ended by one without a name.
extern const struct Step name_steps[], file_steps[], lock_steps[], attribute_steps[], acl_steps[];

void say(const char* format, ...) __attribute__((format(printf, 1, 2)));
// "ok", or the name of errno where it is -1.
void say_result(long result);
void say_errno(void);
// A run of equal bytes is one piece: "ab" + 5 * 'x'.
void say_bytes(const unsigned char* bytes, size_t size);
// The descriptor of a slot's number; `slot_of` the place of it.
int open_in(const char* number);
int* slot_of(const char* number);
long number_of(const char* text);
int mode_of(const char* text);
// Value of a word in "name,name"; the operation's words end with a null name.
struct Word {
  const char* name;
  long value;
};
long words_of(const struct Word* known, const char* text);
// Back to the state in which a case begins.
void forget_files(void);

// --- actors ----------------------------------------------------------------------------------------------
// Processes that do the operations: a and b as root, u, v and w as ordinary users (w is u with another
// group).
struct Actor;
struct Actor* actor_of(char name);
// All of them, if they live: nothing open, in that folder.
void actors_begin(const char* folder);
// One operation, and what it says. Without `wait` the answer is left for actor_wait.
void actor_do(struct Actor* actor, const char* operation, int wait, char* answer);
void actor_wait(struct Actor* actor, char* answer);
