// The command line as its parser is told of it. The parser is CLI11, which is all header and takes a compiler
// longer to read than any file of ours takes in whole: command.cpp alone includes it. Main thread.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

namespace CLI {
class App;
class Option;
}  // namespace CLI

namespace snug::cli {

// A flag or an argument of a command. Of this and of Command, copies are the same one; they must not be used
// once their CommandLine has gone.
class Option {
 public:
  explicit Option(CLI::Option* option) : option_(option) {}

  Option required() const;
  // Of the value, in the help: "PATH".
  Option placeholder(std::string name) const;
  // Of the help.
  Option group(std::string name) const;
  // The value is one of these, ends included.
  Option within(int least, int most) const;
  Option within(double least, double most) const;
  Option one_of(std::vector<std::string> words) const;
  // Of one that repeats: what stands behind its value is not another value.
  Option one_each() const;

 private:
  CLI::Option* option_;
};

// One that is described already.
struct OptionFacts {
  std::vector<std::string> names;  // "-m", "--memory"; of an argument: "NAME"
  std::string placeholder;         // of its value; "" when it takes none
  std::string help;
  std::string group;  // "": hidden
  bool is_argument = false;
  bool required = false;
  bool repeats = false;
};

class Command {
 public:
  explicit Command(CLI::App* app) : app_(app) {}

  // What the command line gives goes to `value`, which must outlive the parsing. `names`: "-m,--memory".
  Option argument(std::string name, std::string& value, std::string help = "") const;
  Option argument(std::string name, std::vector<std::string>& values, std::string help = "") const;
  Option option(std::string names, std::string& value, std::string help) const;
  Option option(std::string names, std::vector<std::string>& values, std::string help) const;
  Option option(std::string names, int& value, std::string help) const;
  Option option(std::string names, std::optional<double>& value, std::string help) const;
  Option flag(std::string names, bool& value, std::string help) const;
  // To a function, called once, where it is given at all. An option is given once or several times, with one
  // value each.
  using TakeValues = std::function<void(const std::vector<std::string>& values)>;
  using TakeFlag = std::function<void(bool is_set)>;
  Option option_to(std::string names, TakeValues take, std::string help) const;
  Option flag_to(std::string names, TakeFlag take, std::string help) const;

  Command subcommand(std::string name, std::string about) const;
  void needs_subcommand() const;
  // When it has been parsed.
  void callback(std::function<void()> action) const;
  // Below its help.
  void footer(std::string text) const;
  // In its usage, what the parser does not know of: the words behind "--", which never reach it.
  void takes_command() const;
  // Not in the help.
  void hide() const;

  std::string name() const;
  std::string about() const;
  std::string footer() const;
  bool is_hidden() const;
  // In the order in which they were described.
  std::vector<OptionFacts> options() const;
  std::vector<Command> subcommands() const;
  // That the command line has named.
  std::optional<Command> parsed_subcommand() const;

 private:
  CLI::App* app_;
};

// The whole of it, to be parsed once.
class CommandLine {
 public:
  explicit CommandLine(std::string about);
  ~CommandLine();

  // The program itself.
  Command program() const { return Command(app_.get()); }
  // What --version prints.
  void version(const std::string& text);

  struct Parsed {
    enum class Kind { kUnderstood, kHelp, kWrong };
    Kind kind = Kind::kUnderstood;
    std::string text;  // of help that was asked for: all of it; of what is wrong: the parser's own words
  };
  // `words`: the program's name first.
  Parsed parse(std::span<char* const> words);

 private:
  std::unique_ptr<CLI::App> app_;
};

}  // namespace snug::cli
