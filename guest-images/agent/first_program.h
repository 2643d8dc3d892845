// The agent as a guest's first program, where the initrd holds nothing else but drivers (vmm/cli/host_image):
// file systems, drivers, an address, and the guest's root.
#pragma once

#include <string>

#include "vmm/protocol/messages.h"

namespace snug::agent {

// Whether the kernel has started us as that: by the name /init.
bool is_first_program(const char* name);

// Everything before the agent can serve, in the root where commands run. What fails is said on the kernel's
// log; a guest that has no root powers off.
// With snug.late on the kernel's command line the network is left to begin_run(), with snug.late=root the
// root as well, which is another one's each time.
void begin_guest();

// Whether something of the guest is left to its host's word to begin: the root; with snug.late a network that
// nobody has raised yet, or a first program of the root's own.
bool waits_to_begin();
// The same of a first program that only waits, of an initramfs that goes on to the root by itself: with
// snug.late=init.
bool waits_to_hand_over();
// Addresses of those interfaces that are there, as the host has them. "": done.
std::string take_addresses(const protocol::Begin& request);
// What was left: addresses of interfaces as the host has them, then as begin_guest() does, by what the
// request has besides the kernel's command line. "": done.
std::string begin_run(const protocol::Begin& request);

// Where the kernel's command line names a program of the root's own to be the first (snug.init=WORD, once for
// each of its words; snug.env=NAME=VALUE): that goes on as it, and a process beside it returns from here,
// true. False: there is none named. Does not return where it cannot be started: then the guest powers off.
bool hand_over();

// A login shell on the console: what a guest does that was given nothing else to do. In a process of its own;
// returns when there is no shell.
void run_shell();

}  // namespace snug::agent
