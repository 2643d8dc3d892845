// A share of the host's beside tmpfs: does it do what POSIX and Linux have files do? Cases are text; each is
// carried out in an empty folder on tmpfs and in one on each share, and what its operations had to say is
// compared, line by line.
//
// Usage: posix FOLDER TMPFS TAG,TAG:SHARE... [--case WORD]
// FOLDER has *.cases and `differences`. Prints every case that differs and is not known to, and every one
// that is said to and does not. Exit status: 0 if there are none of either.
//
//   # A case begins with its name, at the beginning of a line. Lines that are indented go on.
//   name: OPERATION; OPERATION
//     ACTOR: OPERATION; ACTOR&: OPERATION; wait ACTOR
//   other: OPERATION = RESULT        on the shares only: what tmpfs does not have
//
// Who does it is root unless an ACTOR is named (posix.h); with & nobody waits for it until "wait". What
// operations there are, the tables say (name_steps and others). Lines of `differences`: CASE CONDITION
// REASON, the case a pattern, the condition tags joined by "+", or "*". Kernels before Linux 6.6 give every
// share the tag "before-6.6".
#include <dirent.h>
#include <errno.h>
#include <fnmatch.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/utsname.h>
#include <unistd.h>

#include "posix.h"

enum { kCases = 1000, kOperations = 40, kPlaces = 8 };

struct Case {
  char* name;
  char* operations[kOperations];  // as written
  char* wanted[kOperations];      // null but for those that say it
  int count;
  int of_shares;
};

struct Difference {
  char* name;
  char* condition;
};

struct Place {
  char* tags;
  char* folder;
  int same, listed, wrong;
};

static struct Case cases[kCases];
static int case_count;
static struct Difference differences[kCases];
static int difference_count;
static struct Place places[kPlaces];
static int place_count;

static void give_up(const char* what, const char* which) {
  fprintf(stderr, "posix: %s: %s\n", what, which);
  exit(125);
}

static char* trimmed(char* text) {
  while (*text == ' ') ++text;
  for (char* end = text + strlen(text); end > text && (end[-1] == ' ' || end[-1] == '\n'); --end) end[-1] = 0;
  return text;
}

static void add_operations(struct Case* one, char* text) {
  char* rest = text;
  for (char* part; (part = strsep(&rest, ";"));) {
    part = trimmed(part);
    if (!*part) continue;
    if (one->count == kOperations) give_up("too many operations", one->name);
    char* const equals = strstr(part, " = ");
    if (equals) {
      *equals = 0;
      one->wanted[one->count] = strdup(trimmed(equals + 3));
      one->of_shares = 1;
    }
    one->operations[one->count++] = strdup(trimmed(part));
  }
}

static void read_cases(const char* path) {
  FILE* const file = fopen(path, "r");
  if (!file) give_up(path, strerror(errno));
  char line[4096];
  while (fgets(line, sizeof line, file)) {
    if (line[0] == '#' || line[0] == '\n') continue;
    if (line[0] == ' ') {
      add_operations(&cases[case_count - 1], line);
      continue;
    }
    char* const colon = strchr(line, ':');
    if (!colon || case_count == kCases) give_up("not a case", line);
    *colon = 0;
    for (int i = 0; i < case_count; ++i)
      if (strcmp(cases[i].name, line) == 0) give_up("two cases of one name", line);
    cases[case_count].name = strdup(line);
    add_operations(&cases[case_count++], colon + 1);
  }
  fclose(file);
}

static void read_differences(const char* path) {
  FILE* const file = fopen(path, "r");
  if (!file) give_up(path, strerror(errno));
  char line[4096];
  while (fgets(line, sizeof line, file)) {
    if (line[0] == '#' || line[0] == '\n') continue;
    struct Difference* const one = &differences[difference_count++];
    if (difference_count == kCases || sscanf(line, "%ms %ms", &one->name, &one->condition) != 2)
      give_up("not a difference", line);
    int known = 0;
    for (int i = 0; i < case_count; ++i) known |= fnmatch(one->name, cases[i].name, 0) == 0;
    if (!known) give_up("no such case", one->name);
  }
  fclose(file);
}

static int has_tag(const char* tags, const char* tag, size_t size) {
  for (const char* at = tags; at; at = strchr(at, ',') ? strchr(at, ',') + 1 : NULL)
    if (strncmp(at, tag, size) == 0 && (at[size] == ',' || at[size] == 0)) return 1;
  return 0;
}

static int is_before(int major, int minor) {
  struct utsname kernel;
  int one = 0, other = 0;
  uname(&kernel);
  sscanf(kernel.release, "%d.%d", &one, &other);
  return one < major || (one == major && other < minor);
}

static int is_listed(const struct Case* one, const struct Place* place) {
  for (int i = 0; i < difference_count; ++i) {
    if (fnmatch(differences[i].name, one->name, 0) != 0) continue;
    int holds = 1;
    for (const char* at = differences[i].condition; *at && holds;) {
      const size_t size = strcspn(at, "+");
      holds = (size == 1 && *at == '*') || has_tag(place->tags, at, size);
      at += size + (at[size] == '+');
    }
    if (holds) return 1;
  }
  return 0;
}

static void carry_out(const char* operation, char* answer) {
  char name = 'a';
  int wait = 1;
  if (strncmp(operation, "wait ", 5) == 0) {
    struct Actor* const actor = actor_of(operation[5]);
    if (actor) actor_wait(actor, answer);
    return;
  }
  if (operation[1] == ':' || (operation[1] == '&' && operation[2] == ':')) {
    name = operation[0];
    wait = operation[1] == ':';
    operation += wait ? 2 : 3;
    while (*operation == ' ') ++operation;
  }
  struct Actor* const actor = actor_of(name);
  strcpy(answer, "?? no such actor");
  if (actor) actor_do(actor, operation, wait, answer);
}

// What each operation said, in a folder of the place.
static void run_case(const struct Case* one, const char* place, char (*answers)[kText]) {
  char folder[256];
  umask(0);
  // Without its number the path is as long everywhere.
  snprintf(folder, sizeof folder, "%s/%s", place, one->name);
  if (mkdir(folder, 0777) != 0) give_up(folder, strerror(errno));
  actors_begin(folder);
  for (int i = 0; i < one->count; ++i) carry_out(one->operations[i], answers[i]);
  actors_begin("/");
}

static char expected[kOperations][kText], found[kOperations][kText];

static void judge(const struct Case* one, struct Place* place) {
  run_case(one, place->folder, found);
  int differs = 0;
  for (int i = 0; i < one->count; ++i) {
    const char* const wanted = one->of_shares ? one->wanted[i] : expected[i];
    differs |= (wanted && strcmp(wanted, found[i]) != 0) || strncmp(found[i], "??", 2) == 0;
  }
  const int listed = is_listed(one, place);
  *(differs ? listed ? &place->listed : &place->wrong : listed ? &place->wrong : &place->same) += 1;
  if (!differs && listed) printf("%s (%s): is said to differ, and does not\n", one->name, place->tags);
  if (!differs || (listed && !getenv("SHOW_LISTED"))) return;
  printf("%s (%s):\n", one->name, place->tags);
  for (int i = 0; i < one->count; ++i) {
    const char* const wanted = one->of_shares ? one->wanted[i] : expected[i];
    printf("    %s: %s", one->operations[i], found[i]);
    if (wanted && strcmp(wanted, found[i]) != 0) printf("   <-- not: %s", wanted);
    printf("\n");
  }
}

int main(int count, char** arguments) {
  if (count < 4) give_up("usage", "posix FOLDER TMPFS TAG,TAG:SHARE... [--case WORD]");
  DIR* const folder = opendir(arguments[1]);
  if (!folder) give_up(arguments[1], strerror(errno));
  char path[512];
  for (struct dirent* entry; (entry = readdir(folder));) {
    snprintf(path, sizeof path, "%s/%s", arguments[1], entry->d_name);
    if (strstr(entry->d_name, ".cases")) read_cases(path);
  }
  closedir(folder);
  snprintf(path, sizeof path, "%s/differences", arguments[1]);
  read_differences(path);
  const char* word = "";
  for (int i = 3; i < count; ++i) {
    if (strcmp(arguments[i], "--case") == 0) {
      word = arguments[++i];
    } else if (place_count < kPlaces) {
      char* const colon = strchr(arguments[i], ':');
      if (!colon) give_up("not a place", arguments[i]);
      *colon = 0;
      struct Place* const place = &places[place_count++];
      if (asprintf(&place->tags, "%s%s", arguments[i], is_before(6, 6) ? ",before-6.6" : "") < 0) exit(125);
      place->folder = colon + 1;
    }
  }
  for (int i = 0; i < case_count; ++i) {
    if (!strstr(cases[i].name, word)) continue;
    if (!cases[i].of_shares) run_case(&cases[i], arguments[2], expected);
    for (int j = 0; j < place_count; ++j) judge(&cases[i], &places[j]);
    fflush(stdout);
  }
  int wrong = 0;
  for (int j = 0; j < place_count; ++j) {
    const struct Place* const place = &places[j];
    printf("%s: %d cases as expected, %d differ as listed, %d wrong\n", place->tags, place->same,
           place->listed, place->wrong);
    wrong += place->wrong;
  }
  return wrong != 0;
}
