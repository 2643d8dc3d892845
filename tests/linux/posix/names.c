// Operations on names: what is there, and what it is called.
#include <dirent.h>
#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/fs.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>
#include <unistd.h>

#include "posix.h"

char said[kText];

void say(const char* format, ...) {
  const size_t size = strlen(said);
  va_list arguments;
  va_start(arguments, format);
  vsnprintf(said + size, sizeof said - size, format, arguments);
  va_end(arguments);
}

void say_errno(void) {
  const char* const name = strerrorname_np(errno);
  say("%s", name ? name : "an unknown error");
}

void say_result(long result) {
  if (result < 0)
    say_errno();
  else
    say("ok");
}

long number_of(const char* text) {
  char* end;
  long number = strtol(text, &end, 0);
  if (*end == 'k') number <<= 10;
  if (*end == 'm') number <<= 20;
  if (*end == 'g') number <<= 30;
  return number;
}

int mode_of(const char* text) { return (int)strtol(text, NULL, 8); }

long words_of(const struct Word* known, const char* text) {
  long value = 0;
  while (*text) {
    const size_t size = strcspn(text, ",");
    const struct Word* word = known;
    while (word->name && (strlen(word->name) != size || strncmp(word->name, text, size) != 0)) ++word;
    if (!word->name) say("?? unknown word in %s; ", text);
    value |= word->value;
    text += size + (text[size] == ',');
  }
  return value;
}

static const char* text_of_type(unsigned mode) {
  switch (mode & S_IFMT) {
    case S_IFREG:
      return "file";
    case S_IFDIR:
      return "folder";
    case S_IFLNK:
      return "link";
    case S_IFIFO:
      return "fifo";
    case S_IFSOCK:
      return "socket";
    case S_IFCHR:
      return "character";
    case S_IFBLK:
      return "block";
    default:
      return "?";
  }
}

static void say_status(const struct stat* status) {
  say("%s %04o links %lu owner %u:%u", text_of_type(status->st_mode), status->st_mode & 07777,
      (unsigned long)status->st_nlink, status->st_uid, status->st_gid);
  // What a folder's size is, is up to its file system.
  if (!S_ISDIR(status->st_mode)) say(" size %ld", (long)status->st_size);
  if (S_ISCHR(status->st_mode) || S_ISBLK(status->st_mode))
    say(" device %u,%u", major(status->st_rdev), minor(status->st_rdev));
}

static void do_mkdir(char** a) { say_result(mkdir(a[0], a[1] ? (mode_t)mode_of(a[1]) : 0755)); }
static void do_rmdir(char** a) { say_result(rmdir(a[0])); }
static void do_unlink(char** a) { say_result(unlink(a[0])); }
static void do_rename(char** a) { say_result(rename(a[0], a[1])); }
static void do_link(char** a) {
  say_result(linkat(AT_FDCWD, a[0], AT_FDCWD, a[1], a[2] ? AT_SYMLINK_FOLLOW : 0));
}
static void do_symlink(char** a) { say_result(symlink(a[0], a[1])); }
static void do_chdir(char** a) { say_result(chdir(a[0])); }
static void do_umask(char** a) { say("%04o", umask((mode_t)mode_of(a[0]))); }

static void do_rename2(char** a) {
  static const struct Word kFlags[] = {{"noreplace", RENAME_NOREPLACE},
                                       {"exchange", RENAME_EXCHANGE},
                                       {"whiteout", RENAME_WHITEOUT},
                                       {"unknown", 1 << 20},
                                       {0}};
  say_result(syscall(SYS_renameat2, AT_FDCWD, a[0], AT_FDCWD, a[1], words_of(kFlags, a[2])));
}

// A name for what a slot holds.
static void do_link_open(char** a) {
  char path[64];
  snprintf(path, sizeof path, "/proc/self/fd/%d", open_in(a[0]));
  say_result(linkat(AT_FDCWD, path, AT_FDCWD, a[1], AT_SYMLINK_FOLLOW));
}

static void do_readlink(char** a) {
  unsigned char target[PATH_MAX];
  const ssize_t size = readlink(a[0], (char*)target, sizeof target);
  if (size < 0)
    say_errno();
  else
    say_bytes(target, (size_t)size);
}

static void do_mknod(char** a) {
  static const struct Word kTypes[] = {{"file", S_IFREG},
                                       {"fifo", S_IFIFO},
                                       {"socket", S_IFSOCK},
                                       {"character", S_IFCHR},
                                       {"block", S_IFBLK},
                                       {"folder", S_IFDIR},
                                       {0}};
  const unsigned number = a[3] && a[4] ? (unsigned)makedev(number_of(a[3]), number_of(a[4])) : 0;
  say_result(mknod(a[0], (mode_t)words_of(kTypes, a[1]) | (a[2] ? (mode_t)mode_of(a[2]) : 0644), number));
}

static void do_access(char** a) {
  static const struct Word kRights[] = {{"r", R_OK}, {"w", W_OK}, {"x", X_OK}, {"f", F_OK}, {0}};
  say_result(faccessat(AT_FDCWD, a[0], (int)words_of(kRights, a[1]), AT_EACCESS));
}

static void status_of(const char* path, int flags) {
  struct stat status;
  if (fstatat(AT_FDCWD, path, &status, flags) != 0)
    say_errno();
  else
    say_status(&status);
}
static void do_stat(char** a) { status_of(a[0], 0); }
static void do_lstat(char** a) { status_of(a[0], AT_SYMLINK_NOFOLLOW); }

static void do_fstat(char** a) {
  struct stat status;
  if (fstat(open_in(a[0]), &status) != 0)
    say_errno();
  else
    say_status(&status);
}

static void do_same(char** a) {
  struct stat one, other;
  if (stat(a[0], &one) != 0 || stat(a[1], &other) != 0)
    say_errno();
  else
    say(one.st_ino == other.st_ino && one.st_dev == other.st_dev ? "same" : "different");
}

static void do_statfs(char** a) {
  struct statfs status;
  if (statfs(a[0], &status) != 0)
    say_errno();
  else
    say("names of %ld, %s", (long)status.f_namelen,
        status.f_blocks > 0 && status.f_bsize > 0 && status.f_bavail <= status.f_blocks ? "has blocks"
                                                                                        : "no blocks");
}

// --- what is in folders ----------------------------------------------------------------------------------
static int compare(const void* one, const void* other) {
  return strcmp(*(char* const*)one, *(char* const*)other);
}

static void do_ls(char** a) {
  DIR* const folder = opendir(a[0]);
  if (!folder) {
    say_errno();
    return;
  }
  char* names[512];
  size_t count = 0;
  for (struct dirent* entry; count < 512 && (entry = readdir(folder));)
    if (asprintf(&names[count], "%s %s", entry->d_name, text_of_type((unsigned)entry->d_type << 12)) > 0)
      ++count;
  closedir(folder);
  qsort(names, count, sizeof *names, compare);
  for (size_t i = 0; i < count; ++i) {
    say("%s%s", i ? ", " : "", names[i]);
    free(names[i]);
  }
}

// So many files, or folders, named by numbers.
static void do_fill(char** a) {
  long made = 0;
  for (long i = 0; i < number_of(a[1]); ++i) {
    char path[PATH_MAX];
    snprintf(path, sizeof path, "%s/%ld", a[0], i);
    const int fd = open(path, O_CREAT | O_EXCL | O_WRONLY | O_CLOEXEC, 0644);
    if (fd < 0) continue;
    close(fd);
    ++made;
  }
  say("%ld", made);
}

static DIR* folders[kSlots];
static long places[kSlots];

static void do_opendir(char** a) {
  DIR** const folder = &folders[number_of(a[0]) % kSlots];
  *folder = opendir(a[1]);
  say_result(*folder ? 0 : -1);
}

// Reads on, at most COUNT entries: how many there were, and which sum of bytes of names.
static void do_next(char** a) {
  DIR* const folder = folders[number_of(a[0]) % kSlots];
  const long most = a[1] ? number_of(a[1]) : LONG_MAX;
  long seen = 0;
  errno = 0;
  while (seen < most && readdir(folder)) ++seen;
  if (errno) say_errno();
  say("%ld", seen);
}

static void do_tell(char** a) {
  places[number_of(a[0]) % kSlots] = telldir(folders[number_of(a[0]) % kSlots]);
  say("ok");
}
static void do_back(char** a) {
  seekdir(folders[number_of(a[0]) % kSlots], places[number_of(a[0]) % kSlots]);
  say("ok");
}
static void do_rewind(char** a) {
  rewinddir(folders[number_of(a[0]) % kSlots]);
  say("ok");
}

// Every entry, removed as it is read.
static void do_drain(char** a) {
  DIR* const folder = opendir(a[0]);
  long gone = 0;
  for (struct dirent* entry; folder && (entry = readdir(folder));)
    if (entry->d_name[0] != '.') gone += unlinkat(dirfd(folder), entry->d_name, 0) == 0;
  if (folder) closedir(folder);
  say("%ld", gone);
}

// --- programs --------------------------------------------------------------------------------------------
// Of x86-64, one that ends with its effective user as status.
static const struct {
  Elf64_Ehdr header;
  Elf64_Phdr segment;
  unsigned char code[16];
} kProgram = {
    .header = {.e_ident = {0x7f, 'E', 'L', 'F', ELFCLASS64, ELFDATA2LSB, EV_CURRENT},
               .e_type = ET_EXEC,
               .e_machine = EM_X86_64,
               .e_version = EV_CURRENT,
               .e_entry = 0x400000 + sizeof(Elf64_Ehdr) + sizeof(Elf64_Phdr),
               .e_phoff = sizeof(Elf64_Ehdr),
               .e_ehsize = sizeof(Elf64_Ehdr),
               .e_phentsize = sizeof(Elf64_Phdr),
               .e_phnum = 1},
    .segment = {.p_type = PT_LOAD,
                .p_flags = PF_R | PF_X,
                .p_vaddr = 0x400000,
                .p_filesz = 136,
                .p_memsz = 136,
                .p_align = 4096},
    // geteuid: mov eax, 107; syscall. exit: mov edi, eax; mov eax, 60; syscall.
    .code = {0xb8, 107, 0, 0, 0, 0x0f, 5, 0x89, 0xc7, 0xb8, 60, 0, 0, 0, 0x0f, 5},
};

static void do_program(char** a) {
  const int fd = open(a[0], O_CREAT | O_WRONLY | O_TRUNC | O_CLOEXEC, 0777);
  if (fd < 0) {
    say_errno();
    return;
  }
  const ssize_t written = write(fd, &kProgram, sizeof kProgram);
  fchmod(fd, a[1] ? (mode_t)mode_of(a[1]) : 0755);
  close(fd);
  say(written == sizeof kProgram ? "ok" : "short");
}

static void do_exec(char** a) {
  const pid_t child = fork();
  if (child == 0) {
    execl(a[0], a[0], (char*)NULL);
    _exit(errno == EACCES ? 250 : errno == ENOEXEC ? 251 : errno == ETXTBSY ? 252 : 253);
  }
  int status = 0;
  waitpid(child, &status, 0);
  say(WIFEXITED(status) ? "effective user %d" : "signal %d",
      WIFEXITED(status) ? WEXITSTATUS(status) : WTERMSIG(status));
}

void forget_names(void);
void forget_names(void) {
  for (int i = 0; i < kSlots; ++i)
    if (folders[i]) {
      closedir(folders[i]);
      folders[i] = NULL;
    }
}

const struct Step name_steps[] = {
    {"mkdir", 1, 2, do_mkdir},
    {"rmdir", 1, 1, do_rmdir},
    {"unlink", 1, 1, do_unlink},
    {"rename", 2, 2, do_rename},
    {"rename2", 3, 3, do_rename2},
    {"link", 2, 3, do_link},
    {"link-open", 2, 2, do_link_open},
    {"symlink", 2, 2, do_symlink},
    {"readlink", 1, 1, do_readlink},
    {"mknod", 2, 5, do_mknod},
    {"access", 2, 2, do_access},
    {"stat", 1, 1, do_stat},
    {"lstat", 1, 1, do_lstat},
    {"fstat", 1, 1, do_fstat},
    {"same", 2, 2, do_same},
    {"statfs", 1, 1, do_statfs},
    {"chdir", 1, 1, do_chdir},
    {"umask", 1, 1, do_umask},
    {"ls", 1, 1, do_ls},
    {"fill", 2, 2, do_fill},
    {"opendir", 2, 2, do_opendir},
    {"next", 1, 2, do_next},
    {"tell", 1, 1, do_tell},
    {"back", 1, 1, do_back},
    {"rewind", 1, 1, do_rewind},
    {"drain", 1, 1, do_drain},
    {"program", 1, 2, do_program},
    {"exec", 1, 1, do_exec},
    {0},
};
