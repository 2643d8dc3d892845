#include "vmm/run/papers.h"

#include <array>
#include <nlohmann/json.hpp>

namespace snug {
namespace {

using nlohmann::json;

// Those that a machine has one of.
constexpr std::array kSingle{
    std::pair{"talk", &Papers::talk},       std::pair{"calls", &Papers::calls},
    std::pair{"news", &Papers::news},       std::pair{"state", &Papers::state},
    std::pair{"memory", &Papers::memory},   std::pair{"ends", &Papers::ends},
    std::pair{"kernel", &Papers::kernel},   std::pair{"control", &Papers::control},
    std::pair{"console", &Papers::console}, std::pair{"vsock", &Papers::vsock},
    std::pair{"pid", &Papers::pid},
};
constexpr std::array kTexts{
    std::pair{"spec", &Papers::spec},
    std::pair{"directory", &Papers::directory},
    std::pair{"cgroup", &Papers::cgroup},
    std::pair{"vsock_path", &Papers::vsock_path},
};
constexpr std::array kFlags{
    std::pair{"background", &Papers::background},
    std::pair{"keep", &Papers::keep},
    std::pair{"commands", &Papers::commands},
};

Papers papers_of(const json& from) {
  Papers papers;
  for (const auto& [name, member] : kSingle) papers.*member = from.at(name).get<int>();
  for (const auto& [name, member] : kTexts) papers.*member = from.at(name).get<std::string>();
  for (const auto& [name, member] : kFlags) papers.*member = from.at(name).get<bool>();
  papers.initrds = from.at("initrds").get<std::vector<int>>();
  for (const json& disk : from.at("disks"))
    papers.disks.push_back({disk.at("file").get<int>(), disk.at("overlay").get<int>()});
  for (const json& nic : from.at("nics"))
    papers.nics.push_back({nic.at("taps").get<std::vector<int>>(), nic.at("socket").get<int>()});
  return papers;
}

}  // namespace

std::vector<int> Papers::descriptors() const {
  std::vector<int> all;
  const auto add = [&all](int fd) {
    if (fd >= 0) all.push_back(fd);
  };
  for (const auto& [name, member] : kSingle)
    if (member != &Papers::pid) add(this->*member);
  for (const int fd : initrds) add(fd);
  for (const Disk& disk : disks) {
    add(disk.file);
    add(disk.overlay);
  }
  for (const Nic& nic : nics) {
    for (const int fd : nic.taps) add(fd);
    add(nic.socket);
  }
  return all;
}

// A path that is not UTF-8 would become another: the one that reads this finds no such folder and says so.
std::string Papers::text() const {
  json body{{"format", kFormat}, {"initrds", initrds}, {"disks", json::array()}, {"nics", json::array()}};
  for (const auto& [name, member] : kSingle) body[name] = this->*member;
  for (const auto& [name, member] : kTexts) body[name] = this->*member;
  for (const auto& [name, member] : kFlags) body[name] = this->*member;
  for (const Disk& disk : disks) body["disks"].push_back({{"file", disk.file}, {"overlay", disk.overlay}});
  for (const Nic& nic : nics) body["nics"].push_back({{"taps", nic.taps}, {"socket", nic.socket}});
  return body.dump(-1, ' ', false, json::error_handler_t::replace);
}

Result<Papers> Papers::parse(std::string_view text) {
  const json parsed = json::parse(text, nullptr, false);
  if (!parsed.is_object()) return fail("the papers of the machine cannot be read");
  try {
    if (const int format = parsed.at("format").get<int>(); format != kFormat)
      return fail_with_hint(
          fmt::format("the machine's papers are of format {}, and this snug knows {}", format, kFormat),
          "stop the machine, and start it anew");
    return papers_of(parsed);
  } catch (const json::exception& error) {
    return fail("the papers of the machine cannot be read: {}", error.what());
  }
}

}  // namespace snug
