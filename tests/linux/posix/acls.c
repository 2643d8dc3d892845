// Operations on access control lists, as the attributes that Linux has them in. A list is written
// "u::rw-,u:101:r--,g::r--,m::rw-,o::---", in the order of its entries; "tag=N:101:r--" is one that there may
// not be. Before it, "version=N," has another version, and "cut=N," leaves out N bytes at its end.
#include <endian.h>
#include <errno.h>
#include <linux/posix_acl.h>
#include <linux/posix_acl_xattr.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/xattr.h>

#include "posix.h"

enum { kEntries = 64, kNobody = -1 };

struct List {
  struct posix_acl_xattr_header head;
  struct posix_acl_xattr_entry entries[kEntries];
};

static const char* name_of(const char* which) {
  return strcmp(which, "default") == 0 ? "system.posix_acl_default" : "system.posix_acl_access";
}

static unsigned tag_of(const char* word, int is_named) {
  switch (word[0]) {
    case 'u':
      return is_named ? ACL_USER : ACL_USER_OBJ;
    case 'g':
      return is_named ? ACL_GROUP : ACL_GROUP_OBJ;
    case 'm':
      return ACL_MASK;
    case 'o':
      return ACL_OTHER;
    default:
      return (unsigned)strtoul(strchr(word, '=') + 1, NULL, 0);
  }
}

static unsigned rights_of(const char* text) {
  return (strchr(text, 'r') ? ACL_READ : 0) | (strchr(text, 'w') ? ACL_WRITE : 0) |
         (strchr(text, 'x') ? ACL_EXECUTE : 0) | (strchr(text, '?') ? 8 : 0);
}

// Its bytes, as many as it returns.
static size_t read_list(char* text, struct List* list) {
  size_t count = 0, cut = 0;
  list->head.a_version = htole32(POSIX_ACL_XATTR_VERSION);
  for (char* word; (word = strsep(&text, ","));) {
    if (strncmp(word, "version=", 8) == 0) {
      list->head.a_version = htole32((unsigned)atol(word + 8));
    } else if (strncmp(word, "cut=", 4) == 0) {
      cut = (size_t)atol(word + 4);
    } else if (*word && strcmp(word, "-") != 0 && count < kEntries) {
      char* const id = strchr(word, ':') + 1;
      char* const rights = strchr(id, ':') + 1;
      const int is_named = rights != id + 1;
      struct posix_acl_xattr_entry* const entry = &list->entries[count++];
      entry->e_tag = htole16(tag_of(word, is_named));
      entry->e_perm = htole16(rights_of(rights));
      entry->e_id = htole32(is_named ? (unsigned)strtoul(id, NULL, 10) : (unsigned)kNobody);
    }
  }
  return sizeof list->head + count * sizeof *list->entries - cut;
}

static void do_setacl(char** a) {
  static struct List list;
  const size_t size = read_list(a[2], &list);
  say_result(setxattr(a[0], name_of(a[1]), &list, size, 0));
}

static void say_entry(const struct posix_acl_xattr_entry* entry, const char* comma) {
  const unsigned tag = le16toh(entry->e_tag), rights = le16toh(entry->e_perm);
  const char letter = tag & (ACL_USER_OBJ | ACL_USER)     ? 'u'
                      : tag & (ACL_GROUP_OBJ | ACL_GROUP) ? 'g'
                      : tag == ACL_MASK                   ? 'm'
                                                          : 'o';
  say("%s%c:", comma, letter);
  if (tag == ACL_USER || tag == ACL_GROUP) say("%u", le32toh(entry->e_id));
  say(":%c%c%c", rights & ACL_READ ? 'r' : '-', rights & ACL_WRITE ? 'w' : '-',
      rights & ACL_EXECUTE ? 'x' : '-');
}

static void do_getacl(char** a) {
  static struct List list;
  const ssize_t size = getxattr(a[0], name_of(a[1]), &list, sizeof list);
  if (size < (ssize_t)sizeof list.head) {
    say_errno();
    return;
  }
  const size_t count = ((size_t)size - sizeof list.head) / sizeof *list.entries;
  for (size_t i = 0; i < count; ++i) say_entry(&list.entries[i], i ? "," : "");
}

static void do_rmacl(char** a) { say_result(removexattr(a[0], name_of(a[1]))); }

const struct Step acl_steps[] = {
    {"setacl", 3, 3, do_setacl},
    {"getacl", 2, 2, do_getacl},
    {"rmacl", 2, 2, do_rmacl},
    {0},
};
