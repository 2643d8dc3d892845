#include "vmm/cli/complete.h"

#include <fmt/format.h>

#include <algorithm>

namespace snug::cli {
namespace {

// The first sentence, or as much of it as is worth showing beside a word.
std::string brief(std::string_view help) {
  std::string_view text = help.substr(0, help.find('\n'));
  if (const auto end = text.find(". "); end != std::string_view::npos) text = text.substr(0, end);
  if (text.ends_with('.')) text.remove_suffix(1);
  return std::string(text);
}

class Completer {
 public:
  Completer(std::string_view word, const KnownNames& known) : word_(word), known_(known) {}

  void offer(std::string word, std::string_view about = {}) {
    if (word.starts_with(word_)) result_.candidates.push_back({std::move(word), brief(about)});
  }

  void offer_commands(std::span<const CommandInfo> commands) {
    for (const auto& command : commands) offer(command.name, command.about);
  }

  void offer_flags(const CommandInfo& command) {
    for (const auto& flag : command.flags)
      for (const auto& name : flag.names)
        if (name.starts_with("--") || word_.size() < 2) offer(name, flag.help);
  }

  // What may stand behind `before` as the value of a key.
  void offer_value(const Value& value, const std::string& before) {
    for (const auto& word : value.words) offer(before + word);
    if (value.is_path || std::find(value.words.begin(), value.words.end(), "file:") != value.words.end())
      offer_files(Completion::Files::kAll, before);
  }

  void offer_flag_value(const FlagInfo& flag, const std::string& before) {
    if (flag.key == nullptr) {
      if (flag.placeholder == "PATH") offer_files(Completion::Files::kAll, before);
    } else if (flag.key->value) {
      offer_value(*flag.key->value, before);
    } else {
      offer_part(*flag.key->nested, before);
    }
  }

  void offer_argument(const ArgumentInfo& argument) {
    if (argument.name == "NAME" || argument.name == "MACHINE") {
      for (const auto& name : known_.machines()) offer(name);
    } else if (argument.name == "SNAPSHOT") {
      for (const auto& name : known_.snapshots()) offer(name);
    } else if (argument.name == "SPEC") {
      offer_files(Completion::Files::kSpecs, "");
    } else if (argument.name == "FROM" || argument.name == "TO") {
      for (const auto& name : known_.machines()) offer(name + ":");
      if (word_.find(':') == std::string_view::npos) offer_files(Completion::Files::kAll, "");
    } else if (argument.name == "SHELL") {
      for (const char* shell : {"bash", "zsh", "fish"}) offer(shell);
    } else if (argument.name == "PAGE") {
      for (const char* page : {"snug", "snug.yaml"}) offer(page);
    }
  }

  Completion take() { return std::move(result_); }

 private:
  void offer_files(Completion::Files files, const std::string& before) {
    result_.files = files;
    result_.before = before;
  }

  // What begins such a list without the name of a key; of "SOURCE[:TARGET][:ro|rw]" the guest's part is not
  // known.
  void offer_short(const Nested& nested, const Value& value, const std::string& kept, std::string_view part) {
    const auto colon = part.rfind(':');
    if (!nested.short_form.take_apart || colon == std::string_view::npos) return offer_value(value, kept);
    for (const char* mode : {"ro", "rw"}) offer(kept + std::string(part.substr(0, colon + 1)) + mode);
  }

  // One part of "a.img,readonly=true": the first may leave out its key.
  void offer_part(const Nested& nested, const std::string& before) {
    const auto comma = word_.rfind(',');
    const bool first = comma == std::string_view::npos || comma < before.size();
    const size_t start = first ? before.size() : comma + 1;
    const std::string kept(word_.substr(0, start));
    const std::string_view part = word_.substr(start);
    const auto equals = part.find('=');
    for (const auto& key : nested.keys) {
      if (!key.value) continue;
      const bool unsaid = first && key.name == nested.shorthand;
      if (equals != std::string_view::npos && part.substr(0, equals) == key.name)
        offer_value(*key.value, kept + std::string(part.substr(0, equals + 1)));
      if (equals == std::string_view::npos && unsaid) offer_short(nested, *key.value, kept, part);
      if (equals == std::string_view::npos && !unsaid) offer(fmt::format("{}{}=", kept, key.name), key.help);
    }
  }

  std::string_view word_;
  const KnownNames& known_;
  Completion result_;
};

const FlagInfo* find_flag(const CommandInfo& command, std::string_view name) {
  for (const auto& flag : command.flags)
    if (std::find(flag.names.begin(), flag.names.end(), name) != flag.names.end()) return &flag;
  return nullptr;
}

// The flag whose value the word behind `word` is.
const FlagInfo* awaits_value(const CommandInfo& command, const std::string& word) {
  const FlagInfo* flag = find_flag(command, word);
  return flag != nullptr && !flag->placeholder.empty() ? flag : nullptr;
}

}  // namespace

Completion complete(std::span<const std::string> words, std::span<const CommandInfo> commands,
                    const KnownNames& known) {
  if (words.empty()) return {};
  const std::string& word = words.back();
  Completer completer(word, known);
  if (words.size() == 1) {
    completer.offer_commands(commands);
    for (const char* flag : {"--help", "--version"})
      if (word.starts_with('-')) completer.offer(flag);
    return completer.take();
  }
  const auto command =
      std::find_if(commands.begin(), commands.end(), [&](const auto& c) { return c.name == words[0]; });
  const auto before = words.subspan(1, words.size() - 2);
  // Behind "--" stands what the guest is to run.
  if (command == commands.end() || std::find(before.begin(), before.end(), "--") != before.end()) return {};

  const FlagInfo* waiting = nullptr;
  size_t arguments = 0;
  for (const auto& earlier : before) {
    const bool is_value = waiting != nullptr;
    waiting = is_value ? nullptr : awaits_value(*command, earlier);
    if (!is_value && !earlier.starts_with('-')) ++arguments;
  }
  const auto equals = word.find('=');
  if (waiting != nullptr) {
    completer.offer_flag_value(*waiting, "");
  } else if (word.starts_with("--") && equals != std::string::npos) {
    const FlagInfo* flag = find_flag(*command, word.substr(0, equals));
    if (flag != nullptr) completer.offer_flag_value(*flag, word.substr(0, equals + 1));
  } else if (word.starts_with('-')) {
    completer.offer_flags(*command);
  } else if (!command->arguments.empty()) {
    const auto& last = command->arguments.back();
    if (arguments < command->arguments.size())
      completer.offer_argument(command->arguments[arguments]);
    else if (last.repeats)
      completer.offer_argument(last);
  }
  return completer.take();
}

std::string completion_lines(const Completion& completion) {
  std::string out;
  for (const auto& [word, about] : completion.candidates)
    out += about.empty() ? word + "\n" : fmt::format("{}\t{}\n", word, about);
  if (completion.files != Completion::Files::kNone)
    out += fmt::format(":{} {}\n", completion.files == Completion::Files::kAll ? "files" : "specs",
                       completion.before);
  return out;
}

}  // namespace snug::cli
