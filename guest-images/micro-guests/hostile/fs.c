// Requests for files that cannot be (virtio 1.2, 5.11; Linux, include/uapi/linux/fuse.h). What is shared has
// a file `file`, a folder `folder` and a link `link`.
#include "hostile.h"

typedef struct {
  u32 length, operation;
  u64 unique, node;
  u32 uid, gid, pid, extensions;
} Header;
typedef struct {
  u32 length;
  int error;
  u64 unique;
} Answer;
enum { kHeader = sizeof(Header), kAnswer = sizeof(Answer) };

enum {
  kLookup = 1,
  kForget,
  kGetattr,
  kSetattr,
  kReadlink,
  kSymlink,
  kMknod = 8,
  kMkdir,
  kUnlink,
  kRmdir,
  kRename,
  kLink,
  kOpen,
  kRead,
  kWriteData,
  kStatfs,
  kRelease,
  kFsync = 20,
  kSetxattr,
  kGetxattr,
  kListxattr,
  kRemovexattr,
  kFlush,
  kInit,
  kOpendir,
  kReaddir,
  kReleasedir,
  kFsyncdir,
  kGetlk,
  kSetlk,
  kSetlkw,
  kAccess,
  kCreate,
  kInterrupt,
  kBmap,
  kDestroy,
  kIoctl,
  kPoll,
  kNotifyReply,
  kBatchForget,
  kFallocate,
  kReaddirplus,
  kRename2,
  kLseek,
  kCopyFileRange,
  kSetupMapping,
  kRemoveMapping,
  kSyncfs,
  kTmpfile,
};
enum {
  kNoEntry = 2,
  kIo = 5,
  kBadDescriptor = 9,
  kExists = 17,
  kNotFolder = 20,
  kIsFolder = 21,
  kInvalid = 22,
  kNoCall = 38
};
enum { kRoot = 1, kFilePages = 16 };
// What ask() says besides what the server does: an error is below 0.
enum { kFine = 0, kNone = 1, kNoHeader = 2 };

static u8 in[16384] __attribute__((aligned(4096)));
static u8 out[16384] __attribute__((aligned(4096)));
static u32 filled;
static u64 unique = 0x1000;
static const u8 zeros[128];

static Queue* files(Device* device) { return &device->queues[1]; }
static Queue* urgent(Device* device) { return &device->queues[0]; }
static volatile Answer* answer(void) { return (volatile Answer*)out; }
static u64 answered(u32 at) { return *(volatile u64*)(out + kAnswer + at); }

static void begin(u32 operation, u64 node) {
  const Header header = {0, operation, ++unique, node, 0, 0, 1, 0};
  memcpy(in, &header, sizeof header);
  filled = kHeader;
}
static void add(const void* bytes, u32 size) {
  memcpy(in + filled, bytes, size);
  filled += size;
}
static void add32(u32 value) { add(&value, 4); }
static void add64(u64 value) { add(&value, 8); }
static void add_zeros(u32 size) { add(zeros, size); }
static void add_name(const char* name) {
  u32 size = 1;
  while (name[size - 1] != 0) ++size;
  add(name, size);
}
static void say_length(u32 length) { memcpy(in, &length, 4); }

// What has been begun, with room for an answer of so much behind its header.
static int send(Device* device, Queue* queue, u32 room) {
  UsedElement used;
  memset(out, 0xee, kAnswer);
  set_descriptor(queue, 0, address_of(in), filled, kNext, 1);
  set_descriptor(queue, 1, address_of(out), kAnswer + room, kWrite, 0);
  queue_offer(queue, 0);
  queue_ring(queue);
  (void)device;
  if (!WAIT_FOR(queue_take(queue, &used))) return kNone;
  if (used.length < kAnswer || answer()->unique != unique || answer()->length != used.length)
    return kNoHeader;
  return answer()->error;
}
static int ask(Device* device, u32 room) {
  say_length(filled);
  return send(device, files(device), room);
}

static int init(Device* device, u32 major, u32 minor, u64 flags) {
  begin(kInit, 0);
  add32(major);
  add32(minor);
  add32(1 << 20);
  add32((u32)flags);
  add32((u32)(flags >> 32));
  add_zeros(44);
  return ask(device, 64);
}
static Outcome begin_session(Device* device) {
  REQUIRE(init(device, 7, 38, ~(u64)0) == kFine, "a session does not begin");
  return NULL;
}

// The number of a name in the root; 0: it is not there.
static u64 look_up(Device* device, const char* name) {
  begin(kLookup, kRoot);
  add_name(name);
  return ask(device, 128) == kFine ? answered(0) : 0;
}
static u64 open(Device* device, u32 operation, u64 node) {
  begin(operation, node);
  add32(operation == kOpendir ? 0 : 2);
  add32(0);
  return ask(device, 16) == kFine ? answered(0) : ~(u64)0;
}

// --- sizes -----------------------------------------------------------------------------------------------

static Outcome of_length(Device* device, u32 sent, u32 said, int wanted) {
  TRY(begin_session(device));
  begin(kGetattr, kRoot);
  add_zeros(16);
  filled = sent;
  say_length(said);
  const int error = send(device, files(device), 104);
  REQUIRE(error == wanted, "another answer than there should be");
  return expect_works(device);
}
static Outcome header_of_1(Device* device) { return of_length(device, 1, 56, kNoHeader); }
static Outcome header_of_39(Device* device) { return of_length(device, 39, 56, kNoHeader); }
static Outcome length_of_0(Device* device) { return of_length(device, 56, 0, -kInvalid); }
static Outcome length_of_39(Device* device) { return of_length(device, 56, 39, -kInvalid); }
static Outcome length_without_arguments(Device* device) { return of_length(device, 56, 40, kFine); }
static Outcome length_of_more(Device* device) { return of_length(device, 56, 57, -kInvalid); }
static Outcome length_of_4_gib(Device* device) { return of_length(device, 56, 0xffffffff, -kInvalid); }
static Outcome more_than_said(Device* device) { return of_length(device, 4096, 56, kFine); }

static Outcome with_room(Device* device, u32 bytes, u16 flags) {
  TRY(begin_session(device));
  begin(kGetattr, kRoot);
  add_zeros(16);
  say_length(filled);
  Queue* queue = files(device);
  set_descriptor(queue, 0, address_of(in), filled, bytes > 0 ? kNext : 0, 1);
  set_descriptor(queue, 1, address_of(out), bytes, flags, 0);
  queue_offer(queue, 0);
  queue_ring(queue);
  UsedElement used;
  REQUIRE(WAIT_FOR(queue_take(queue, &used)), "a request without room is kept");
  REQUIRE(used.length <= bytes, "more was written than there is room for");
  return expect_works(device);
}
static Outcome no_room(Device* device) { return with_room(device, 0, 0); }
static Outcome room_of_1(Device* device) { return with_room(device, 1, kWrite); }
static Outcome room_of_15(Device* device) { return with_room(device, 15, kWrite); }
static Outcome room_of_a_header(Device* device) { return with_room(device, 16, kWrite); }
static Outcome room_of_half_an_answer(Device* device) { return with_room(device, 60, kWrite); }
static Outcome room_that_is_readable(Device* device) { return with_room(device, 120, 0); }

static Outcome nothing_readable(Device* device) {
  set_descriptor(files(device), 0, address_of(out), 4096, kWrite, 0);
  return submit_works(device, 0);
}

static Outcome byte_by_byte(Device* device) {
  TRY(begin_session(device));
  begin(kLookup, kRoot);
  add_name("file");
  say_length(filled);
  Queue* queue = files(device);
  u16 at = 0;
  for (u32 i = 0; i < filled; ++i, ++at)
    set_descriptor(queue, at, address_of(in) + i, 1, kNext, (u16)(at + 1));
  for (u32 i = 0; i < 144; ++i, ++at)
    set_descriptor(queue, at, address_of(out) + i, 1, (u16)(kWrite | (i < 143 ? kNext : 0)), (u16)(at + 1));
  queue_offer(queue, 0);
  queue_ring(queue);
  UsedElement used;
  REQUIRE(WAIT_FOR(queue_take(queue, &used)), "no answer");
  REQUIRE(used.length == 144 && answer()->error == 0, "a request in pieces is not understood");
  return expect_works(device);
}

// --- what there is not -----------------------------------------------------------------------------------

static Outcome unknown_operations(Device* device) {
  static const u32 operations[] = {0, 7, 19, 53, 100, 4095, 4096, 0x7fffffff, 0xffffffff};
  TRY(begin_session(device));
  for (unsigned i = 0; i < sizeof operations / sizeof *operations; ++i) {
    begin(operations[i], kRoot);
    add_zeros(64);
    REQUIRE(ask(device, 256) == -kNoCall, "an unknown operation is not refused");
  }
  return expect_works(device);
}

static Outcome operations_that_are_not_served(Device* device) {
  static const u32 operations[] = {kBmap, kIoctl, kPoll, kNotifyReply, kSetupMapping, kRemoveMapping};
  TRY(begin_session(device));
  for (unsigned i = 0; i < sizeof operations / sizeof *operations; ++i) {
    begin(operations[i], kRoot);
    add_zeros(64);
    REQUIRE(ask(device, 256) < 0, "what is not served is not refused");
  }
  return expect_works(device);
}

static bool has_no_answer(u32 operation) {
  return operation == kForget || operation == kBatchForget || operation == kInterrupt;
}

// `size`: of arguments, all of them `fill`.
static Outcome every_operation(Device* device, u64 node, u32 size, u8 fill) {
  TRY(begin_session(device));
  for (u32 operation = 1; operation <= kTmpfile; ++operation) {
    if (has_no_answer(operation) || operation == kDestroy || operation == kInit) continue;
    begin(operation, node);
    memset(in + filled, fill, size);
    filled += size;
    const int error = ask(device, 4096);
    REQUIRE(error <= 0, "an operation is not answered");
  }
  return expect_works(device);
}
static Outcome every_one_without_arguments(Device* device) { return every_operation(device, kRoot, 0, 0); }
static Outcome every_one_with_zeros(Device* device) { return every_operation(device, kRoot, 128, 0); }
static Outcome every_one_with_ones(Device* device) { return every_operation(device, kRoot, 128, 0xff); }
static Outcome every_one_with_letters(Device* device) { return every_operation(device, kRoot, 4096, 'a'); }
static Outcome every_one_of_node_0(Device* device) { return every_operation(device, 0, 128, 0); }
static Outcome every_one_of_a_node_never_given(Device* device) {
  return every_operation(device, 12345, 128, 0);
}
static Outcome every_one_of_the_last_node(Device* device) { return every_operation(device, ~(u64)0, 128, 1); }
static Outcome every_one_of_a_sign_bit(Device* device) {
  return every_operation(device, (u64)1 << 63, 64, 0);
}

// --- the session -----------------------------------------------------------------------------------------

static Outcome before_a_session(Device* device) {
  begin(kDestroy, 0);
  (void)ask(device, 0);
  for (u32 operation = 1; operation <= kTmpfile; ++operation) {
    if (has_no_answer(operation) || operation == kInit || operation == kDestroy) continue;
    begin(operation, kRoot);
    add_zeros(128);
    REQUIRE(ask(device, 256) < 0, "something is done before a session begins");
  }
  return expect_works(device);
}
static Outcome begun_again(Device* device) {
  for (unsigned i = 0; i < 100; ++i) TRY(begin_session(device));
  return expect_works(device);
}
static Outcome ended_twice(Device* device) {
  TRY(begin_session(device));
  for (unsigned i = 0; i < 2; ++i) {
    begin(kDestroy, 0);
    REQUIRE(ask(device, 0) <= 0, "an end is not answered");
  }
  REQUIRE(look_up(device, "file") == 0, "something is served after the end");
  return expect_works(device);
}
static Outcome other_versions(Device* device) {
  static const u32 versions[][2] = {{0, 0},  {6, 0},          {7, 0}, {7, 1},
                                    {7, 30}, {7, 0xffffffff}, {8, 0}, {0xffffffff, 0xffffffff}};
  for (unsigned i = 0; i < sizeof versions / sizeof *versions; ++i)
    REQUIRE(init(device, versions[i][0], versions[i][1], 0) <= 0, "a version is not answered");
  return expect_works(device);
}
static Outcome short_begin(Device* device) {
  for (u32 size = 0; size < 16; size += 4) {
    begin(kInit, 0);
    add_zeros(size);
    REQUIRE(ask(device, 64) < 0, "a session begins without being told how");
  }
  return expect_works(device);
}
static Outcome begin_without_room(Device* device) {
  begin(kInit, 0);
  add32(7);
  add32(38);
  add_zeros(56);
  (void)ask(device, 3);
  return expect_works(device);
}
static Outcome numbers_of_a_session_before(Device* device) {
  TRY(begin_session(device));
  const u64 node = look_up(device, "file");
  const u64 handle = open(device, kOpen, node);
  REQUIRE(node > 1 && handle != ~(u64)0, "no file");
  TRY(begin_session(device));
  begin(kGetattr, node);
  add_zeros(16);
  REQUIRE(ask(device, 104) < 0, "a number of the session before is known");
  begin(kRead, node);
  add64(handle);
  add64(0);
  add32(4096);
  add_zeros(20);
  REQUIRE(ask(device, 4096) < 0, "a file of the session before is open");
  return expect_works(device);
}

// --- names -----------------------------------------------------------------------------------------------

static Outcome name_refused(Device* device, const char* name, u32 size) {
  TRY(begin_session(device));
  static const u32 operations[] = {kLookup, kUnlink, kRmdir};
  for (unsigned i = 0; i < 3; ++i) {
    begin(operations[i], kRoot);
    add(name, size);
    REQUIRE(ask(device, 128) < 0, "a name that is none is not refused");
  }
  begin(kMkdir, kRoot);
  add_zeros(8);
  add(name, size);
  REQUIRE(ask(device, 128) < 0, "a folder of a name that is none is made");
  begin(kSymlink, kRoot);
  add(name, size);
  add_name("target");
  REQUIRE(ask(device, 128) < 0, "a link of a name that is none is made");
  return expect_works(device);
}
static Outcome name_without_an_end(Device* device) { return name_refused(device, "file", 4); }
static Outcome name_of_nothing(Device* device) { return name_refused(device, "", 1); }
static Outcome name_dot(Device* device) { return name_refused(device, ".", 2); }
static Outcome name_dots(Device* device) { return name_refused(device, "..", 3); }
static Outcome name_with_slash(Device* device) { return name_refused(device, "folder/file", 12); }
static Outcome name_of_a_slash(Device* device) { return name_refused(device, "/", 2); }
static Outcome name_absolute(Device* device) { return name_refused(device, "/etc/passwd", 12); }
static Outcome name_up(Device* device) { return name_refused(device, "../../../etc/passwd", 20); }
static Outcome name_long(Device* device, u32 size) {
  memset(scratch, 'n', size);
  scratch[size] = 0;
  return name_refused(device, (const char*)scratch, size + 1);
}
static Outcome name_of_256(Device* device) { return name_long(device, 256); }
static Outcome name_of_4096(Device* device) { return name_long(device, 4096); }
static Outcome name_with_more_behind(Device* device) {
  TRY(begin_session(device));
  begin(kLookup, kRoot);
  add("file\0/../../etc/passwd", 23);
  REQUIRE(ask(device, 128) <= 0, "no answer");
  return expect_works(device);
}
static Outcome names_below_a_link(Device* device) {
  TRY(begin_session(device));
  const u64 link = look_up(device, "link");
  REQUIRE(link > 1, "the link is not there");
  begin(kLookup, link);
  add_name("passwd");
  REQUIRE(ask(device, 128) == -kNotFolder, "a link is followed");
  const u64 file = look_up(device, "file");
  begin(kLookup, file);
  add_name("passwd");
  REQUIRE(ask(device, 128) == -kNotFolder, "a file is a folder");
  return expect_works(device);
}

// --- forgetting ------------------------------------------------------------------------------------------

// Has no answer; the chain comes back.
static Outcome tell(Device* device, Queue* queue) {
  UsedElement used;
  say_length(filled);
  set_descriptor(queue, 0, address_of(in), filled, 0, 0);
  queue_offer(queue, 0);
  queue_ring(queue);
  (void)device;
  REQUIRE(WAIT_FOR(queue_take(queue, &used)), "what has no answer does not come back");
  return NULL;
}
static Outcome forget(Device* device, Queue* queue, u64 node, u64 count) {
  begin(kForget, node);
  add64(count);
  return tell(device, queue);
}
static Outcome forget_the_root(Device* device) {
  TRY(begin_session(device));
  for (unsigned i = 0; i < 100; ++i) TRY(forget(device, urgent(device), kRoot, ~(u64)0));
  REQUIRE(look_up(device, "file") > 1, "the root is forgotten");
  return expect_works(device);
}
static Outcome forget_what_was_never_given(Device* device) {
  static const u64 nodes[] = {0, 2, 12345, (u64)1 << 32, (u64)1 << 63, ~(u64)0};
  TRY(begin_session(device));
  for (unsigned i = 0; i < 6; ++i) TRY(forget(device, urgent(device), nodes[i], ~(u64)0));
  return expect_works(device);
}
static Outcome forget_more_than_was_given(Device* device) {
  TRY(begin_session(device));
  const u64 node = look_up(device, "file");
  TRY(forget(device, urgent(device), node, ~(u64)0));
  TRY(forget(device, files(device), node, 1));
  begin(kGetattr, node);
  add_zeros(16);
  REQUIRE(ask(device, 104) < 0, "what was forgotten is known");
  return expect_works(device);
}
static Outcome forget_an_open_file(Device* device) {
  TRY(begin_session(device));
  const u64 node = look_up(device, "file");
  const u64 handle = open(device, kOpen, node);
  TRY(forget(device, urgent(device), node, 1));
  begin(kRead, node);
  add64(handle);
  add64(0);
  add32(4096);
  add_zeros(20);
  REQUIRE(ask(device, 4096) <= 0, "no answer");
  return expect_works(device);
}
static Outcome forget_a_storm(Device* device) {
  TRY(begin_session(device));
  Queue* queue = urgent(device);
  begin(kForget, 4711);
  add64(1);
  say_length(filled);
  set_descriptor(queue, 0, address_of(in), filled, 0, 0);
  for (unsigned round = 0; round < 64; ++round) {
    const u16 before = queue->used[1];
    for (unsigned i = 0; i < queue->size; ++i) queue_offer(queue, 0);
    queue_ring(queue);
    REQUIRE(WAIT_FOR((u16)(queue->used[1] - before) == queue->size), "a ring full of it is not taken");
  }
  queue->seen = queue->used[1];
  return expect_works(device);
}
static Outcome forget_many(Device* device, u32 said, u32 given) {
  TRY(begin_session(device));
  begin(kBatchForget, 0);
  add32(said);
  add32(0);
  for (u32 i = 0; i < given; ++i) {
    add64(i + 2);
    add64(~(u64)0);
  }
  TRY(tell(device, urgent(device)));
  return expect_works(device);
}
static Outcome forget_fewer_than_said(Device* device) { return forget_many(device, 100, 3); }
static Outcome forget_4_billion(Device* device) { return forget_many(device, 0xffffffff, 3); }
static Outcome forget_none(Device* device) { return forget_many(device, 0, 0); }
static Outcome forget_many_at_once(Device* device) { return forget_many(device, 500, 500); }
static Outcome forget_with_room(Device* device) {
  TRY(begin_session(device));
  begin(kForget, 2);
  add64(1);
  say_length(filled);
  const int error = send(device, files(device), 64);
  REQUIRE(error == kNoHeader, "what has no answer is answered");
  return expect_works(device);
}
static Outcome other_requests_on_the_urgent_queue(Device* device) {
  TRY(begin_session(device));
  begin(kGetattr, kRoot);
  add_zeros(16);
  say_length(filled);
  REQUIRE(send(device, urgent(device), 104) <= 0, "no answer");
  return expect_works(device);
}

// --- files -----------------------------------------------------------------------------------------------

static Outcome handles_never_given(Device* device) {
  static const u64 handles[] = {0, 1, 77, (u64)1 << 32, ~(u64)0};
  static const u32 operations[] = {kRead,  kReaddir, kReaddirplus, kRelease,   kReleasedir,
                                   kFlush, kFsync,   kFsyncdir,    kFallocate, kLseek};
  TRY(begin_session(device));
  const u64 node = look_up(device, "file");
  for (unsigned h = 0; h < 5; ++h)
    for (unsigned i = 0; i < sizeof operations / sizeof *operations; ++i) {
      begin(operations[i], node);
      add64(handles[h]);
      add_zeros(32);
      REQUIRE(ask(device, 4096) < 0 || operations[i] == kFlush || operations[i] == kRelease ||
                  operations[i] == kReleasedir,
              "a handle that was never given is taken");
    }
  return expect_works(device);
}
static Outcome handle_of_another_file(Device* device) {
  TRY(begin_session(device));
  const u64 handle = open(device, kOpen, look_up(device, "file"));
  begin(kRead, kRoot);
  add64(handle);
  add64(0);
  add32(64);
  add_zeros(20);
  REQUIRE(ask(device, 64) < 0, "a file is read by another's number");
  return expect_works(device);
}
static Outcome released_twice(Device* device) {
  TRY(begin_session(device));
  const u64 node = look_up(device, "file"), handle = open(device, kOpen, node);
  for (unsigned i = 0; i < 2; ++i) {
    begin(kRelease, node);
    add64(handle);
    add_zeros(16);
    REQUIRE(ask(device, 0) <= 0, "no answer");
  }
  return expect_works(device);
}

static Outcome read_of(Device* device, u64 offset, u32 size, u32 room) {
  TRY(begin_session(device));
  const u64 node = look_up(device, "file"), handle = open(device, kOpen, node);
  begin(kRead, node);
  add64(handle);
  add64(offset);
  add32(size);
  add_zeros(20);
  REQUIRE(ask(device, room) <= 0, "no answer");
  REQUIRE(answer()->length <= kAnswer + room, "more than there is room for");
  return expect_works(device);
}
static Outcome read_nothing(Device* device) { return read_of(device, 0, 0, 4096); }
static Outcome read_without_room(Device* device) { return read_of(device, 0, 4096, 0); }
static Outcome read_4_gib(Device* device) { return read_of(device, 0, 0xffffffff, 4096); }
static Outcome read_at_the_end_of_numbers(Device* device) { return read_of(device, ~(u64)0, 4096, 4096); }
static Outcome read_at_a_sign_bit(Device* device) { return read_of(device, (u64)1 << 63, 4096, 4096); }
static Outcome read_behind_the_end(Device* device) { return read_of(device, (u64)1 << 40, 4096, 4096); }

static Outcome write_of(Device* device, u64 offset, u32 size, u32 given) {
  TRY(begin_session(device));
  const u64 node = look_up(device, "file"), handle = open(device, kOpen, node);
  begin(kWriteData, node);
  add64(handle);
  add64(offset);
  add32(size);
  add_zeros(20);
  filled += given;
  REQUIRE(ask(device, 8) <= 0, "no answer");
  REQUIRE(answer()->error != 0 || (u32)answered(0) <= size, "more is written than was to be");
  return expect_works(device);
}
static Outcome write_less_than_said(Device* device) { return write_of(device, 0, 8192, 100); }
static Outcome write_more_than_said(Device* device) { return write_of(device, 0, 100, 8192); }
static Outcome write_4_gib(Device* device) { return write_of(device, 0, 0xffffffff, 100); }
static Outcome write_at_the_end_of_numbers(Device* device) { return write_of(device, ~(u64)0, 100, 100); }
static Outcome write_at_a_sign_bit(Device* device) { return write_of(device, (u64)1 << 63, 100, 100); }
static Outcome write_at_the_last_byte(Device* device) {
  return write_of(device, ((u64)1 << 63) - 50, 100, 100);
}

// Data where no memory is, or where the rings are.
static Outcome data_at(Device* device, u64 address, u32 length) {
  TRY(begin_session(device));
  const u64 node = look_up(device, "file"), handle = open(device, kOpen, node);
  Queue* queue = files(device);
  begin(kRead, node);
  add64(handle);
  add64(0);
  add32(length);
  add_zeros(20);
  say_length(filled);
  set_descriptor(queue, 0, address_of(in), filled, kNext, 1);
  set_descriptor(queue, 1, address_of(out), kAnswer, kNext | kWrite, 2);
  set_descriptor(queue, 2, address, length, kWrite, 0);
  return submit_lives(device, 0);
}
static Outcome data_in_the_hole(Device* device) { return data_at(device, option("low_end", 0), 4096); }
static Outcome data_over_the_end(Device* device) {
  return data_at(device, option("high_end", 0) - 100, 4096);
}
static Outcome data_over_the_used_ring(Device* device) {
  return data_at(device, address_of(files(device)->used), 4096);
}
static Outcome data_over_the_descriptors(Device* device) {
  return data_at(device, address_of(files(device)->descriptors), 4096);
}
static Outcome data_over_the_request(Device* device) { return data_at(device, address_of(in), 4096); }
static Outcome answer_over_the_request(Device* device) {
  TRY(begin_session(device));
  Queue* queue = files(device);
  begin(kGetattr, kRoot);
  add_zeros(16);
  say_length(filled);
  set_descriptor(queue, 0, address_of(in), filled, kNext, 1);
  set_descriptor(queue, 1, address_of(in), 4096, kWrite, 0);
  return submit_lives(device, 0);
}

static Outcome list_of(Device* device, u32 operation, u64 offset, u32 size, u32 room) {
  TRY(begin_session(device));
  const u64 handle = open(device, kOpendir, kRoot);
  begin(operation, kRoot);
  add64(handle);
  add64(offset);
  add32(size);
  add_zeros(20);
  REQUIRE(ask(device, room) <= 0, "no answer");
  return expect_works(device);
}
static Outcome list_nothing(Device* device) { return list_of(device, kReaddir, 0, 0, 4096); }
static Outcome list_into_1_byte(Device* device) { return list_of(device, kReaddir, 0, 1, 1); }
static Outcome list_4_gib(Device* device) { return list_of(device, kReaddirplus, 0, 0xffffffff, 4096); }
static Outcome list_at_the_end_of_numbers(Device* device) {
  return list_of(device, kReaddirplus, ~(u64)0, 4096, 4096);
}
static Outcome list_at_odd_places(Device* device) {
  for (u64 at = 1; at != 0; at <<= 3) TRY(list_of(device, kReaddir, at * 5, 4096, 4096));
  return NULL;
}

// Without ever giving one back: there is an end to it, and the next session has them all.
static Outcome open_without_end(Device* device, u32 operation) {
  TRY(begin_session(device));
  const u64 node = operation == kOpendir ? kRoot : look_up(device, "file");
  unsigned count = 0;
  while (count < 100000 && open(device, operation, node) != ~(u64)0) ++count;
  REQUIRE(count > 16, "not many files can be open");
  REQUIRE(count < 100000, "files are opened without end");
  begin(kDestroy, 0);
  (void)ask(device, 0);
  return expect_works(device);
}
static Outcome open_files_without_end(Device* device) { return open_without_end(device, kOpen); }
static Outcome open_folders_without_end(Device* device) { return open_without_end(device, kOpendir); }

static Outcome locks_without_end(Device* device) {
  TRY(begin_session(device));
  const u64 node = look_up(device, "file"), handle = open(device, kOpen, node);
  Queue* queue = files(device);
  for (unsigned i = 0; i < 400; ++i) {
    begin(kSetlkw, node);
    add64(handle);
    add64(i);  // owner
    add64(0);
    add64(~(u64)0 >> 1);
    add32(1);  // F_WRLCK
    add32(1);
    add_zeros(8);
    say_length(filled);
    UsedElement used;
    set_descriptor(queue, 0, address_of(in), filled, kNext, 1);
    set_descriptor(queue, 1, address_of(out), kAnswer, kWrite, 0);
    const u16 before = queue->used[1];
    queue_offer(queue, 0);
    queue_ring(queue);
    // What is read is read at once; the answer may never come.
    for (u64 until = now() + ticks_khz() / 2; now() < until && queue->used[1] == before;) pause();
    while (queue_take(queue, &used)) continue;
    if (i > queue->size / 2 && queue->used[1] == before) break;
  }
  return NULL;
}
static Outcome locks_that_cannot_be(Device* device) {
  TRY(begin_session(device));
  const u64 node = look_up(device, "file"), handle = open(device, kOpen, node);
  static const u64 ranges[][2] = {{1, 0}, {~(u64)0, ~(u64)0}, {(u64)1 << 63, ~(u64)0}, {5, ~(u64)0}};
  for (u32 type = 0; type < 6; ++type)
    for (unsigned i = 0; i < 4; ++i) {
      begin(type % 2 == 0 ? kSetlk : kGetlk, node);
      add64(handle);
      add64(~(u64)0);
      add64(ranges[i][0]);
      add64(ranges[i][1]);
      add32(type == 5 ? 0xffffffff : type);
      add32(0);
      add32(0xffffffff);
      add32(0);
      REQUIRE(ask(device, 24) <= 0, "no answer");
    }
  return expect_works(device);
}
static Outcome interrupts_of_nothing(Device* device) {
  TRY(begin_session(device));
  for (unsigned i = 0; i < 10; ++i) {
    begin(kInterrupt, 0);
    add64(unique - 1);
    TRY(tell(device, urgent(device)));
  }
  return expect_works(device);
}

static Outcome set_everything(Device* device, u64 value) {
  TRY(begin_session(device));
  const u64 node = look_up(device, "file");
  begin(kSetattr, node);
  add32(0xffffffff);
  add32(0);
  for (unsigned i = 0; i < 10; ++i) add64(value);
  REQUIRE(ask(device, 104) <= 0, "no answer");
  return expect_works(device);
}
static Outcome set_everything_to_ones(Device* device) { return set_everything(device, ~(u64)0); }
static Outcome set_everything_to_a_sign_bit(Device* device) { return set_everything(device, (u64)1 << 63); }

static Outcome nodes_of_every_type(Device* device) {
  TRY(begin_session(device));
  for (u32 type = 0; type < 16; ++type) {
    begin(kMknod, kRoot);
    add32(type << 12 | 07777);
    add32(0xffffffff);
    add_zeros(8);
    add_name("made");
    REQUIRE(ask(device, 128) <= 0, "no answer");
    begin(kUnlink, kRoot);
    add_name("made");
    (void)ask(device, 0);
    begin(kRmdir, kRoot);
    add_name("made");
    (void)ask(device, 0);
  }
  return expect_works(device);
}
static Outcome made_with_all_flags(Device* device) {
  TRY(begin_session(device));
  for (u32 bit = 0; bit < 32; ++bit) {
    begin(kCreate, kRoot);
    add32((u32)1 << bit | 2);
    add32(0xffffffff);
    add32(0xffffffff);
    add32(0xffffffff);
    add_name("made");
    REQUIRE(ask(device, 160) <= 0, "no answer");
    begin(kUnlink, kRoot);
    add_name("made");
    (void)ask(device, 0);
  }
  return expect_works(device);
}
static Outcome renamed_to_nowhere(Device* device) {
  TRY(begin_session(device));
  static const u64 folders[] = {0, 77, ~(u64)0};
  for (unsigned i = 0; i < 3; ++i) {
    begin(kRename, kRoot);
    add64(folders[i]);
    add_name("file");
    add_name("elsewhere");
    REQUIRE(ask(device, 0) < 0, "a file is renamed to nowhere");
  }
  begin(kRename2, kRoot);
  add64(kRoot);
  add32(0xffffffff);
  add32(0);
  add_name("file");
  add_name("elsewhere");
  REQUIRE(ask(device, 0) < 0, "a file is renamed by every flag");
  begin(kRename, kRoot);
  add64(kRoot);
  add_name("file");
  add("elsewhere", 9);
  REQUIRE(ask(device, 0) < 0, "a name without an end");
  REQUIRE(look_up(device, "file") > 1, "the file is gone");
  return expect_works(device);
}
static Outcome folder_into_itself(Device* device) {
  TRY(begin_session(device));
  const u64 folder = look_up(device, "folder");
  begin(kRename, kRoot);
  add64(folder);
  add_name("folder");
  add_name("below");
  REQUIRE(ask(device, 0) < 0, "a folder lies in itself");
  return expect_works(device);
}
static Outcome attributes_of_any_size(Device* device) {
  TRY(begin_session(device));
  const u64 node = look_up(device, "file");
  static const u32 sizes[] = {0, 1, 0x10000, 0x10001, 0xffffffff};
  for (unsigned i = 0; i < 5; ++i) {
    begin(kGetxattr, node);
    add32(sizes[i]);
    add32(0);
    add_name("user.none");
    REQUIRE(ask(device, 4096) <= 0, "no answer");
    begin(kListxattr, node);
    add32(sizes[i]);
    add32(0);
    REQUIRE(ask(device, 4096) <= 0, "no answer");
    begin(kSetxattr, node);
    add32(sizes[i]);
    add32(0xffffffff);
    add64(0);
    add_name("user.none");
    add_zeros(16);
    REQUIRE(ask(device, 0) <= 0, "no answer");
  }
  return expect_works(device);
}
static Outcome room_of_any_kind(Device* device) {
  TRY(begin_session(device));
  const u64 node = look_up(device, "file"), handle = open(device, kOpen, node);
  for (u32 mode = 1; mode != 0; mode <<= 1) {
    begin(kFallocate, node);
    add64(handle);
    add64(~(u64)0 >> 1);
    add64(~(u64)0 >> 1);
    add32(mode);
    add32(0);
    REQUIRE(ask(device, 0) < 0, "there is room behind the end of numbers");
  }
  for (u32 whence = 0; whence < 40; ++whence) {
    begin(kLseek, node);
    add64(handle);
    add64(~(u64)0);
    add32(whence);
    add32(0);
    REQUIRE(ask(device, 8) <= 0, "no answer");
  }
  return expect_works(device);
}
static Outcome copied_over_itself(Device* device) {
  TRY(begin_session(device));
  const u64 node = look_up(device, "file"), handle = open(device, kOpen, node);
  static const u64 lengths[] = {0, 4096, (u64)1 << 63, ~(u64)0};
  for (unsigned i = 0; i < 4; ++i) {
    begin(kCopyFileRange, node);
    add64(handle);
    add64(0);
    add64(node);
    add64(handle);
    add64(100);
    add64(lengths[i]);
    add64(i == 3 ? 1 : 0);
    REQUIRE(ask(device, 8) <= 0, "no answer");
  }
  return expect_works(device);
}

// --- resets ----------------------------------------------------------------------------------------------

static Outcome reset_under_way(Device* device, u32 operation) {
  for (unsigned round = 0; round < 20; ++round) {
    if (round > 0) TRY(start(device, DEFAULT_FEATURES));
    TRY(begin_session(device));
    const u64 node = look_up(device, "file"), handle = open(device, kOpen, node);
    Queue* queue = files(device);
    begin(operation, node);
    add64(handle);
    add64(0);
    add32(4096);
    add_zeros(20);
    if (operation == kWriteData) filled += 4096;
    say_length(filled);
    set_descriptor(queue, 0, address_of(in), filled, kNext, 1);
    set_descriptor(queue, 1, address_of(out), 8192, kWrite, 0);
    for (unsigned i = 0; i < queue->size; ++i) queue_offer(queue, 0);
    queue_ring(queue);
    REQUIRE(virtio_reset(device), "a reset with requests under way is never done");
  }
  return NULL;
}
static Outcome reset_with_reads(Device* device) { return reset_under_way(device, kRead); }
static Outcome reset_with_writes(Device* device) { return reset_under_way(device, kWriteData); }

static const Case cases[] = {
    {"header_of_1", header_of_1},
    {"header_of_39", header_of_39},
    {"length_of_0", length_of_0},
    {"length_of_39", length_of_39},
    {"length_without_arguments", length_without_arguments},
    {"length_of_more", length_of_more},
    {"length_of_4_gib", length_of_4_gib},
    {"more_than_said", more_than_said},
    {"no_room", no_room},
    {"room_of_1", room_of_1},
    {"room_of_15", room_of_15},
    {"room_of_a_header", room_of_a_header},
    {"room_of_half_an_answer", room_of_half_an_answer},
    {"room_that_is_readable", room_that_is_readable},
    {"nothing_readable", nothing_readable},
    {"byte_by_byte", byte_by_byte},
    {"unknown_operations", unknown_operations},
    {"operations_that_are_not_served", operations_that_are_not_served},
    {"every_one_without_arguments", every_one_without_arguments},
    {"every_one_with_zeros", every_one_with_zeros},
    {"every_one_with_ones", every_one_with_ones},
    {"every_one_with_letters", every_one_with_letters},
    {"every_one_of_node_0", every_one_of_node_0},
    {"every_one_of_a_node_never_given", every_one_of_a_node_never_given},
    {"every_one_of_the_last_node", every_one_of_the_last_node},
    {"every_one_of_a_sign_bit", every_one_of_a_sign_bit},
    {"before_a_session", before_a_session},
    {"begun_again", begun_again},
    {"ended_twice", ended_twice},
    {"other_versions", other_versions},
    {"short_begin", short_begin},
    {"begin_without_room", begin_without_room},
    {"numbers_of_a_session_before", numbers_of_a_session_before},
    {"name_without_an_end", name_without_an_end},
    {"name_of_nothing", name_of_nothing},
    {"name_dot", name_dot},
    {"name_dots", name_dots},
    {"name_with_slash", name_with_slash},
    {"name_of_a_slash", name_of_a_slash},
    {"name_absolute", name_absolute},
    {"name_up", name_up},
    {"name_of_256", name_of_256},
    {"name_of_4096", name_of_4096},
    {"name_with_more_behind", name_with_more_behind},
    {"names_below_a_link", names_below_a_link},
    {"forget_the_root", forget_the_root},
    {"forget_what_was_never_given", forget_what_was_never_given},
    {"forget_more_than_was_given", forget_more_than_was_given},
    {"forget_an_open_file", forget_an_open_file},
    {"forget_a_storm", forget_a_storm},
    {"forget_fewer_than_said", forget_fewer_than_said},
    {"forget_4_billion", forget_4_billion},
    {"forget_none", forget_none},
    {"forget_many_at_once", forget_many_at_once},
    {"forget_with_room", forget_with_room},
    {"other_requests_on_the_urgent_queue", other_requests_on_the_urgent_queue},
    {"handles_never_given", handles_never_given},
    {"handle_of_another_file", handle_of_another_file},
    {"released_twice", released_twice},
    {"read_nothing", read_nothing},
    {"read_without_room", read_without_room},
    {"read_4_gib", read_4_gib},
    {"read_at_the_end_of_numbers", read_at_the_end_of_numbers},
    {"read_at_a_sign_bit", read_at_a_sign_bit},
    {"read_behind_the_end", read_behind_the_end},
    {"write_less_than_said", write_less_than_said},
    {"write_more_than_said", write_more_than_said},
    {"write_4_gib", write_4_gib},
    {"write_at_the_end_of_numbers", write_at_the_end_of_numbers},
    {"write_at_a_sign_bit", write_at_a_sign_bit},
    {"write_at_the_last_byte", write_at_the_last_byte},
    {"data_in_the_hole", data_in_the_hole},
    {"data_over_the_end", data_over_the_end},
    {"data_over_the_used_ring", data_over_the_used_ring},
    {"data_over_the_descriptors", data_over_the_descriptors},
    {"data_over_the_request", data_over_the_request},
    {"answer_over_the_request", answer_over_the_request},
    {"list_nothing", list_nothing},
    {"list_into_1_byte", list_into_1_byte},
    {"list_4_gib", list_4_gib},
    {"list_at_the_end_of_numbers", list_at_the_end_of_numbers},
    {"list_at_odd_places", list_at_odd_places},
    {"open_files_without_end", open_files_without_end},
    {"open_folders_without_end", open_folders_without_end},
    {"locks_without_end", locks_without_end},
    {"locks_that_cannot_be", locks_that_cannot_be},
    {"interrupts_of_nothing", interrupts_of_nothing},
    {"set_everything_to_ones", set_everything_to_ones},
    {"set_everything_to_a_sign_bit", set_everything_to_a_sign_bit},
    {"nodes_of_every_type", nodes_of_every_type},
    {"made_with_all_flags", made_with_all_flags},
    {"renamed_to_nowhere", renamed_to_nowhere},
    {"folder_into_itself", folder_into_itself},
    {"attributes_of_any_size", attributes_of_any_size},
    {"room_of_any_kind", room_of_any_kind},
    {"copied_over_itself", copied_over_itself},
    {"reset_with_reads", reset_with_reads},
    {"reset_with_writes", reset_with_writes},
};
const CaseSet fs_cases = CASE_SET("request", kFs, cases);
