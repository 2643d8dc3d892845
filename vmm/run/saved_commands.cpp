#include "vmm/run/saved_commands.h"

#include <algorithm>
#include <nlohmann/json.hpp>

namespace snug {
namespace {

using nlohmann::json;

constexpr const char* kUnreadable = "what the snapshot's machine was started for cannot be read";

// Bytes as the characters of these numbers, in UTF-8.
std::string text_of(std::string_view bytes) {
  std::string text;
  for (const char c : bytes) {
    const auto byte = static_cast<unsigned char>(c);
    if (byte < 0x80) {
      text += c;
    } else {
      text += static_cast<char>(0xc0 | byte >> 6);
      text += static_cast<char>(0x80 | (byte & 0x3f));
    }
  }
  return text;
}

// Other characters, which text_of() does not make, come out as their lower bits.
std::string bytes_of(std::string_view text) {
  std::string bytes;
  for (size_t i = 0; i < text.size(); ++i) {
    const auto byte = static_cast<unsigned char>(text[i]);
    if (byte < 0x80 || i + 1 == text.size()) {
      bytes += text[i];
    } else {
      bytes += static_cast<char>((byte & 0x03) << 6 | (static_cast<unsigned char>(text[++i]) & 0x3f));
    }
  }
  return bytes;
}

json list_of(const std::vector<std::string>& texts) {
  json list = json::array();
  for (const std::string& text : texts) list.push_back(text_of(text));
  return list;
}

std::vector<std::string> texts_in(const json& from, const char* name) {
  std::vector<std::string> texts;
  for (const json& text : from.at(name)) texts.push_back(bytes_of(text.get<std::string>()));
  return texts;
}

std::string text_in(const json& from, const char* name) { return bytes_of(from.at(name).get<std::string>()); }

json of_health(const HealthPlan& health) {
  return {{"command", list_of(health.command.arguments)},   {"variables", list_of(health.command.variables)},
          {"folder", text_of(health.command.folder)},       {"user", text_of(health.command.user)},
          {"interval_ms", health.interval.count()},         {"timeout_ms", health.timeout.count()},
          {"start_period_ms", health.start_period.count()}, {"retries", health.retries}};
}

HealthPlan health_of(const json& from) {
  using std::chrono::milliseconds;
  HealthPlan health;
  health.command.arguments = texts_in(from, "command");
  health.command.variables = texts_in(from, "variables");
  health.command.folder = text_in(from, "folder");
  health.command.user = text_in(from, "user");
  health.interval = milliseconds(from.at("interval_ms").get<int64_t>());
  health.timeout = milliseconds(from.at("timeout_ms").get<int64_t>());
  health.start_period = milliseconds(from.at("start_period_ms").get<int64_t>());
  health.retries = from.at("retries").get<uint32_t>();
  return health;
}

CommandPlan plan_of(const json& from) {
  CommandPlan plan;
  for (const json& command : from.at("commands"))
    plan.commands.push_back({texts_in(command, "words"), text_in(command, "title")});
  plan.variables = texts_in(from, "variables");
  plan.folder = text_in(from, "folder");
  plan.user = text_in(from, "user");
  plan.stop_signal = from.at("stop_signal").get<int>();
  plan.tty = from.at("tty").get<bool>();
  plan.goes_on = from.at("running").get<bool>() && !plan.commands.empty();
  plan.status_before = from.at("status").get<int>();
  if (from.contains("health")) plan.health = health_of(from.at("health"));
  return plan;
}

std::string saved_plan(const CommandPlan& plan, const GuestCommands::Progress& progress) {
  json commands = json::array();
  for (size_t i = progress.over; i < plan.commands.size(); ++i)
    commands.push_back(
        {{"words", list_of(plan.commands[i].words)}, {"title", text_of(plan.commands[i].title)}});
  json saved{{"commands", std::move(commands)}, {"running", progress.running},
             {"status", progress.status},       {"variables", list_of(plan.variables)},
             {"folder", text_of(plan.folder)},  {"user", text_of(plan.user)},
             {"stop_signal", plan.stop_signal}, {"tty", plan.tty}};
  if (plan.health) saved["health"] = of_health(*plan.health);
  return saved.dump();
}

}  // namespace

std::string saved_commands(const CommandPlan& plan, const GuestCommands::Progress& progress) {
  if (progress.over >= plan.commands.size()) return {};
  return saved_plan(plan, progress);
}

std::string saved_health(const HealthPlan& health) {
  CommandPlan plan;
  plan.health = health;
  return saved_plan(plan, {});
}

Result<CommandPlan> parse_saved_commands(std::string_view text) {
  const json parsed = json::parse(text, nullptr, false);
  try {
    CommandPlan plan = plan_of(parsed);
    if (std::ranges::any_of(plan.commands, &std::vector<std::string>::empty, &CommandPlan::Command::words))
      return fail("{}: one of them has no words", kUnreadable);
    return plan;
  } catch (const json::exception& error) {
    return fail("{}: {}", kUnreadable, error.what());
  }
}

}  // namespace snug
