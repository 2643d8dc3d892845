#include "vmm/cli/command.h"

#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <sstream>
#include <stdexcept>
#include <string_view>
#include <utility>

namespace snug::cli {
namespace {

class CommandHelp : public CLI::Formatter {
 public:
  std::string make_usage(const CLI::App* app, std::string name) const override {
    std::string usage = CLI::Formatter::make_usage(app, std::move(name));
    usage.insert(usage.find_last_not_of('\n') + 1, " [-- COMMAND...]");
    return usage;
  }
};

template <class Value>
Option add(CLI::App& app, std::string& names, Value& value, std::string& help) {
  return Option(app.add_option(std::move(names), value, std::move(help)));
}

std::vector<std::string> names_of(const CLI::Option& option) {
  if (!option.nonpositional()) return {option.get_name(true)};
  std::vector<std::string> names;
  for (const auto& name : option.get_snames()) names.push_back("-" + name);
  for (const auto& name : option.get_lnames()) names.push_back("--" + name);
  return names;
}

std::string placeholder_of(const CLI::Option& option) {
  if (option.get_items_expected_max() == 0) return {};
  std::string name = option.get_type_name();
  // Of a check on the value, which the parser appends.
  name.resize(std::min(name.size(), name.find(':')));
  return name;
}

// The word by which a flag is neither on nor off.
std::string wrong_flag(const CLI::App& program, std::span<char* const> words) {
  const CLI::App* app = &program;
  while (!app->get_subcommands().empty()) app = app->get_subcommands().front();
  for (const std::string_view word : words) {
    const size_t equals = word.find('=');
    if (equals == std::string_view::npos) continue;
    const CLI::Option* option = app->get_option_no_throw(std::string(word.substr(0, equals)));
    if (option != nullptr && option->get_items_expected_max() == 0)
      return fmt::format("{}: expected true or false", word);
  }
  return "a flag is neither true nor false";
}

}  // namespace

// --- a flag or an argument --------------------------------------------------------------------------------

Option Option::required() const { return Option(option_->required()); }

Option Option::placeholder(std::string name) const { return Option(option_->type_name(std::move(name))); }

Option Option::group(std::string name) const { return Option(option_->group(std::move(name))); }

Option Option::within(int least, int most) const { return Option(option_->check(CLI::Range(least, most))); }

Option Option::within(double least, double most) const {
  return Option(option_->check(CLI::Range(least, most)));
}

Option Option::one_of(std::vector<std::string> words) const {
  return Option(option_->check(CLI::IsMember(std::move(words))));
}

Option Option::one_each() const { return Option(option_->allow_extra_args(false)); }

// --- a command --------------------------------------------------------------------------------------------

Option Command::argument(std::string name, std::string& value, std::string help) const {
  return add(*app_, name, value, help);
}

Option Command::argument(std::string name, std::vector<std::string>& values, std::string help) const {
  return add(*app_, name, values, help);
}

Option Command::option(std::string names, std::string& value, std::string help) const {
  return add(*app_, names, value, help);
}

Option Command::option(std::string names, std::vector<std::string>& values, std::string help) const {
  return add(*app_, names, values, help);
}

Option Command::option(std::string names, int& value, std::string help) const {
  return add(*app_, names, value, help);
}

Option Command::option(std::string names, std::optional<double>& value, std::string help) const {
  return add(*app_, names, value, help);
}

Option Command::flag(std::string names, bool& value, std::string help) const {
  return Option(app_->add_flag(std::move(names), value, std::move(help)));
}

Option Command::option_to(std::string names, TakeValues take, std::string help) const {
  auto* option = app_->add_option_function<std::vector<std::string>>(std::move(names), take, std::move(help));
  return Option(option->expected(1)->take_all());
}

Option Command::flag_to(std::string names, TakeFlag take, std::string help) const {
  // "--publish-all=false" counts as minus one.
  return Option(app_->add_flag_function(
      std::move(names), [take = std::move(take)](int64_t count) { take(count > 0); }, std::move(help)));
}

Command Command::subcommand(std::string name, std::string about) const {
  return Command(app_->add_subcommand(std::move(name), std::move(about)));
}

void Command::needs_subcommand() const { app_->require_subcommand(1); }

void Command::callback(std::function<void()> action) const { app_->callback(std::move(action)); }

void Command::footer(std::string text) const { app_->footer(std::move(text)); }

void Command::takes_command() const { app_->formatter(std::make_shared<CommandHelp>()); }

void Command::hide() const { app_->group(""); }

std::string Command::name() const { return app_->get_name(); }

std::string Command::about() const { return app_->get_description(); }

std::string Command::footer() const { return app_->get_footer(); }

bool Command::is_hidden() const { return app_->get_group().empty(); }

std::vector<OptionFacts> Command::options() const {
  std::vector<OptionFacts> all;
  for (const CLI::Option* option : std::as_const(*app_).get_options())
    all.push_back({.names = names_of(*option),
                   .placeholder = placeholder_of(*option),
                   .help = option->get_description(),
                   .group = option->get_group(),
                   .is_argument = !option->nonpositional(),
                   .required = option->get_required(),
                   .repeats = option->get_items_expected_max() > 1});
  return all;
}

std::vector<Command> Command::subcommands() const {
  std::vector<Command> all;
  for (CLI::App* app : app_->get_subcommands([](const CLI::App*) { return true; })) all.emplace_back(app);
  return all;
}

std::optional<Command> Command::parsed_subcommand() const {
  const auto parsed = app_->get_subcommands();
  return parsed.empty() ? std::nullopt : std::optional(Command(parsed.front()));
}

// --- the whole --------------------------------------------------------------------------------------------

CommandLine::CommandLine(std::string about) : app_(std::make_unique<CLI::App>(std::move(about))) {
  app_->name("snug");
}

CommandLine::~CommandLine() = default;

void CommandLine::version(const std::string& text) { app_->set_version_flag("--version", text); }

CommandLine::Parsed CommandLine::parse(std::span<char* const> words) {
  try {
    app_->parse(static_cast<int>(words.size()), words.data());
  } catch (const CLI::ParseError& error) {
    if (error.get_exit_code() != 0) return {Parsed::Kind::kWrong, error.what()};
    std::ostringstream help;
    app_->exit(error, help, help);
    return {Parsed::Kind::kHelp, help.str()};
  } catch (const std::logic_error&) {
    // A flag's number, which it takes the text for.
    return {Parsed::Kind::kWrong, wrong_flag(*app_, words)};
  }
  return {};
}

}  // namespace snug::cli
