#include "vmm/control/control_api.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <nlohmann/json.hpp>

namespace snug {
namespace {

using nlohmann::json;

constexpr double kLongestGrace = 86'400;  // seconds

constexpr std::string_view kSnapshotPath = "/v1/snapshot";
constexpr std::string_view kSendPath = "/v1/send";
constexpr std::string_view kUpdatePath = "/v1/update";

// Text from outside may not be UTF-8: JSON must be.
std::string text_of(const json& value) {
  return value.dump(2, ' ', false, json::error_handler_t::replace) + "\n";
}

ControlAnswer done(const ControlTarget& target) {
  return {.json = text_of({{"state", target.info().state}})};
}

ControlAnswer outcome(ControlTarget& target, const Result<void>& result) {
  return result ? done(target) : control_error(409, result.error().text());
}

template <class T>
void add(json& body, const char* member, const std::optional<T>& value) {
  if (value) body[member] = *value;
}

json limits_of(const VmLimits& limits) {
  json body = json::object();
  add(body, "cpu", limits.cpu);
  add(body, "memory_bytes", limits.memory_bytes);
  add(body, "io_weight", limits.io_weight);
  return body;
}

json shares_of(const std::vector<VmShare>& shares) {
  json list = json::array();
  for (const VmShare& share : shares) {
    list.push_back({{"tag", share.tag},
                    {"source", share.source},
                    {"target", share.target},
                    {"readonly", share.readonly},
                    {"state", share.state}});
    if (!share.why.empty()) list.back()["why"] = share.why;
  }
  return list;
}

json health_of(const VmHealth& health) {
  json body{{"state", health.state}, {"failures", health.failures}, {"last_output", health.last_output}};
  add(body, "last_status", health.last_status);
  return body;
}

ControlAnswer get_vm(ControlTarget& target, const HttpRequest&) {
  const VmInfo info = target.info();
  json body{{"name", info.name},
            {"state", info.state},
            {"pid", info.pid},
            {"cpus", info.cpus},
            {"memory_bytes", info.memory_bytes},
            {"kernel", info.kernel},
            {"boots", info.boots},
            {"program", info.program},
            {"updates", info.updates},
            {"started_at", info.started_at},
            {"uptime_seconds", info.uptime_seconds},
            {"directory", info.directory},
            {"console", info.console},
            {"agent", info.agent},
            {"vsock", info.vsock},
            {"ports", info.ports},
            {"shares", shares_of(info.shares)},
            {"jail", info.jail},
            {"jail_missing", info.jail_missing},
            {"limits", limits_of(info.limits)},
            {"cgroup", info.cgroup},
            {"spec", info.spec}};
  add(body, "update_seconds", info.update_seconds);
  if (info.health) body["health"] = health_of(*info.health);
  return {.json = text_of(body)};
}

ControlAnswer get_stats(ControlTarget& target, const HttpRequest&) {
  const VmUsage usage = target.usage();
  json body{{"cpu_seconds", usage.cpu_seconds},
            {"memory_bytes", usage.memory_bytes},
            {"guest_memory_bytes", usage.guest_memory_bytes},
            {"guest_shared_bytes", usage.guest_shared_bytes}};
  add(body, "guest_total_bytes", usage.guest_total_bytes);
  add(body, "guest_free_bytes", usage.guest_free_bytes);
  add(body, "guest_available_bytes", usage.guest_available_bytes);
  add(body, "balloon_bytes", usage.balloon_bytes);
  json limits = limits_of(usage.limits);
  add(limits, "used_cpu_seconds", usage.limited_cpu_seconds);
  add(limits, "cpu_periods", usage.cpu_periods);
  add(limits, "throttled_periods", usage.throttled_periods);
  add(limits, "throttled_seconds", usage.throttled_seconds);
  add(limits, "used_memory_bytes", usage.limited_memory_bytes);
  add(limits, "memory_hits", usage.memory_hits);
  add(limits, "memory_kills", usage.memory_kills);
  if (!limits.empty()) body["limits"] = std::move(limits);
  return {.json = text_of(body)};
}

ControlAnswer get_wait(ControlTarget&, const HttpRequest&) { return {.waits = true}; }

ControlAnswer post_pause(ControlTarget& target, const HttpRequest&) {
  return outcome(target, target.pause());
}

ControlAnswer post_resume(ControlTarget& target, const HttpRequest&) {
  return outcome(target, target.resume());
}

ControlAnswer post_power_button(ControlTarget& target, const HttpRequest&) {
  return outcome(target, target.press_power_button());
}

// {"grace_seconds": N}, or nothing at all.
ControlAnswer post_stop(ControlTarget& target, const HttpRequest& request) {
  if (request.body.empty()) return outcome(target, target.stop(std::nullopt));
  const json body = json::parse(request.body, nullptr, false);
  if (!body.is_object()) return control_error(400, "the body is not a JSON object");
  std::optional<std::chrono::milliseconds> grace;
  for (const auto& [key, value] : body.items()) {
    if (key != "grace_seconds")
      return control_error(400, "unknown member '" + key + "'; there is: grace_seconds");
    if (!value.is_number() || !(value.get<double>() >= 0 && value.get<double>() <= kLongestGrace))
      return control_error(400, "grace_seconds: expected a number from 0 to 86400");
    grace = std::chrono::milliseconds(std::lround(value.get<double>() * 1000));
  }
  return outcome(target, target.stop(grace));
}

ControlAnswer post_kill(ControlTarget& target, const HttpRequest&) {
  target.kill();
  return done(target);
}

// Of requests with files, for whoever has none with it: the server sees to the others.
ControlAnswer post_without_files(ControlTarget& target, const HttpRequest& request) {
  const auto now = begin_with_files(target, request, {}, nullptr);
  return now ? *now : control_error(409, "its answer comes later, and nobody waits for it");
}

constexpr std::array kRoutes{
    ControlRoute{"GET", "/v1/vm", get_vm},
    ControlRoute{"GET", "/v1/stats", get_stats, true},
    ControlRoute{"GET", "/v1/wait", get_wait},
    ControlRoute{"POST", "/v1/pause", post_pause},
    ControlRoute{"POST", "/v1/resume", post_resume},
    ControlRoute{"POST", "/v1/power-button", post_power_button},
    ControlRoute{"POST", "/v1/stop", post_stop},
    ControlRoute{"POST", "/v1/kill", post_kill},
    ControlRoute{"POST", kSnapshotPath, post_without_files, false, true},
    ControlRoute{"POST", kSendPath, post_without_files, false, true},
    ControlRoute{"POST", kUpdatePath, post_without_files, false, true},
};

std::optional<ControlAnswer> begin_snapshot(ControlTarget& target, std::vector<UniqueFd> files,
                                            std::function<void(ControlAnswer)> answer) {
  if (files.size() < 2)
    return control_error(400,
                         "descriptors come with this request (SCM_RIGHTS): empty files, open for writing, "
                         "for the state, for the memory, and for each disk that the guest may write to");
  SnapshotFiles sorted{std::move(files[0]), std::move(files[1]), {}};
  for (size_t i = 2; i < files.size(); ++i) sorted.disks.push_back(std::move(files[i]));
  target.snapshot(std::move(sorted), [answer = std::move(answer)](const Result<SnapshotTaken>& taken) {
    if (!taken) return answer(control_error(409, taken.error().text()));
    json told{{"state_bytes", taken->state_bytes},
              {"paused_seconds", taken->paused_seconds},
              {"disk_bytes", taken->disk_bytes}};
    if (!taken->commands.empty()) told["commands"] = json::parse(taken->commands, nullptr, false);
    answer({.json = text_of(told)});
  });
  return std::nullopt;
}

ControlAnswer begin_sending(ControlTarget& target, std::vector<UniqueFd> files) {
  if (files.size() != 4)
    return control_error(400,
                         "descriptors come with this request (SCM_RIGHTS): empty files, open for writing, "
                         "for the state, for the memory, and for which pages of it were written, and a "
                         "connected socket (SOCK_SEQPACKET)");
  return outcome(target, target.send({std::move(files[0]), std::move(files[1]), {}},
                                     {.pages = std::move(files[2]), .talk = std::move(files[3])}));
}

// Where it is done nobody is left to answer: whoever asks finds another process there.
std::optional<ControlAnswer> begin_update(ControlTarget& target, const std::vector<UniqueFd>& files,
                                          std::function<void(ControlAnswer)> answer) {
  if (!files.empty()) return control_error(400, "no descriptors come with this request");
  target.update([answer = std::move(answer)](const Error& why) {
    if (answer) answer(control_error(409, why.text()));
  });
  return std::nullopt;
}

}  // namespace

std::span<const ControlRoute> control_routes() { return kRoutes; }

bool asks_guest(const HttpRequest& request) {
  return std::ranges::any_of(kRoutes, [&](const ControlRoute& route) {
    return route.asks_guest && route.path == request.path && route.method == request.method;
  });
}

bool takes_files(const HttpRequest& request) {
  return std::ranges::any_of(kRoutes, [&](const ControlRoute& route) {
    return route.takes_files && route.path == request.path && route.method == request.method;
  });
}

std::optional<ControlAnswer> begin_with_files(ControlTarget& target, const HttpRequest& request,
                                              std::vector<UniqueFd> files,
                                              std::function<void(ControlAnswer)> answer) {
  if (request.path == kSendPath) return begin_sending(target, std::move(files));
  if (request.path == kUpdatePath) return begin_update(target, files, std::move(answer));
  return begin_snapshot(target, std::move(files), std::move(answer));
}

ControlAnswer control_error(int status, const std::string& text) {
  return {.status = status, .json = text_of({{"error", text}})};
}

std::string control_end_json(int exit_status, const std::string& message) {
  return text_of({{"exit_status", exit_status}, {"message", message}});
}

ControlAnswer answer_control_request(ControlTarget& target, const HttpRequest& request) {
  std::string methods;
  for (const ControlRoute& route : kRoutes) {
    if (route.path != request.path) continue;
    if (route.method == request.method) return route.handle(target, request);
    methods += (methods.empty() ? "" : ", ") + std::string(route.method);
  }
  if (!methods.empty())
    return control_error(405, request.path + " takes " + methods + ", not " + request.method);
  std::string paths;
  for (const ControlRoute& route : kRoutes)
    paths += fmt::format("{}{} {}", paths.empty() ? "" : ", ", route.method, route.path);
  return control_error(404, "no " + request.path + "; there is: " + paths);
}

}  // namespace snug
