// The processes that carry out operations.
#include <grp.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "posix.h"

// Far beyond what any operation takes.
enum { kPatienceMs = 60000 };

struct Actor {
  char name;
  uid_t uid;
  gid_t gid;
  gid_t group;  // another one, or 0
  pid_t pid;
  int socket;
};

static struct Actor actors[] = {
    {.name = 'a'},
    {.name = 'b'},
    {'u', 101, 101, 0, 0, 0},
    {'v', 102, 102, 0, 0, 0},
    {'w', 101, 101, 200, 0, 0},
};
enum { kActors = sizeof actors / sizeof *actors };
static char begun_in[512];

static void run_step(const struct Step* step, int count, char** arguments) {
  if (count < step->fewest || count > step->most)
    say("?? %s takes %d to %d arguments", step->name, step->fewest, step->most);
  else
    step->run(arguments);
}

// Words are parted by blanks; {TEXT*N} in one is TEXT, N times.
static char* expanded(const char* word) {
  static char room[1 << 17];
  static size_t used;
  if (used > sizeof room / 2) used = 0;
  char* const begin = room + used;
  const char* const open = strchr(word, '{');
  const char* const star = open ? strchr(open, '*') : NULL;
  const char* const close = star ? strchr(star, '}') : NULL;
  if (!close) {
    used += (size_t)snprintf(begin, sizeof room - used, "%s", word) + 1;
    return begin;
  }
  char* at = begin + sprintf(begin, "%.*s", (int)(open - word), word);
  for (long i = 0; i < atol(star + 1) && at < room + sizeof room - 4096; ++i)
    at += sprintf(at, "%.*s", (int)(star - open - 1), open + 1);
  at += sprintf(at, "%s", close + 1);
  used = (size_t)(at - room) + 1;
  return begin;
}

static void carry_out(char* text) {
  char* arguments[kArguments + 1] = {0};
  int count = 0;
  for (char* word = strtok(text, " "); word && count <= kArguments; word = strtok(NULL, " "))
    arguments[count++] = expanded(word);
  const struct Step* const tables[] = {name_steps, file_steps, lock_steps, attribute_steps, acl_steps};
  for (size_t i = 0; i < sizeof tables / sizeof *tables; ++i)
    for (const struct Step* step = tables[i]; step->name; ++step)
      if (count > 0 && strcmp(step->name, arguments[0]) == 0) {
        run_step(step, count - 1, arguments + 1);
        return;
      }
  say("?? no such operation");
}

static void act(const struct Actor* actor, int socket) {
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  signal(SIGPIPE, SIG_IGN);
  signal(SIGXFSZ, SIG_IGN);
  if (actor->uid != 0) {
    if (setgroups(actor->group != 0, &actor->group) != 0 ||
        setresgid(actor->gid, actor->gid, actor->gid) != 0 ||
        setresuid(actor->uid, actor->uid, actor->uid) != 0)
      _exit(1);
  }
  for (;;) {
    char text[kText];
    const ssize_t size = recv(socket, text, sizeof text - 1, 0);
    if (size <= 0) _exit(0);
    text[size] = 0;
    said[0] = 0;
    if (text[0] == '/') {
      forget_files();
      umask(022);
      if (chdir(text) != 0) say_errno();
    } else {
      carry_out(text);
    }
    if (send(socket, said, strlen(said) + 1, 0) < 0) _exit(0);
  }
}

static void start(struct Actor* actor) {
  int ends[2];
  if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends) != 0) exit(125);
  fflush(stdout);
  actor->pid = fork();
  if (actor->pid == 0) {
    for (int i = 0; i < kActors; ++i)
      if (actors[i].socket > 0) close(actors[i].socket);
    close(ends[0]);
    act(actor, ends[1]);
  }
  close(ends[1]);
  actor->socket = ends[0];
  char answer[kText];
  actor_do(actor, begun_in, 1, answer);
}

struct Actor* actor_of(char name) {
  for (int i = 0; i < kActors; ++i)
    if (actors[i].name == name) {
      if (actors[i].pid == 0) start(&actors[i]);
      return &actors[i];
    }
  return NULL;
}

void actors_begin(const char* folder) {
  snprintf(begun_in, sizeof begun_in, "%s", folder);
  char answer[kText];
  for (int i = 0; i < kActors; ++i)
    if (actors[i].pid != 0) actor_do(&actors[i], folder, 1, answer);
}

void actor_do(struct Actor* actor, const char* operation, int wait, char* answer) {
  *answer = 0;
  send(actor->socket, operation, strlen(operation), 0);
  if (wait) actor_wait(actor, answer);
}

void actor_wait(struct Actor* actor, char* answer) {
  struct pollfd ready = {.fd = actor->socket, .events = POLLIN};
  const ssize_t size = poll(&ready, 1, kPatienceMs) == 1 ? recv(actor->socket, answer, kText, 0) : 0;
  if (size > 0) return;
  strcpy(answer, "?? no answer");
  kill(actor->pid, SIGKILL);
  waitpid(actor->pid, NULL, 0);
  close(actor->socket);
  actor->pid = actor->socket = 0;
}
