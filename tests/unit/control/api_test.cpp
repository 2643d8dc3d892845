#include <gtest/gtest.h>

#include <algorithm>
#include <fstream>
#include <nlohmann/json.hpp>
#include <set>

#include "tests/unit/control/fake_target.h"

namespace snug {
namespace {

using nlohmann::json;

json openapi() {
  std::ifstream file(SNUG_OPENAPI);
  return json::parse(file);
}

// Follows a $ref within the document.
json resolved(const json& document, const json& node) {
  const auto ref = node.find("$ref");
  if (ref == node.end()) return node;
  return document.at(json::json_pointer(ref->get<std::string>().substr(1)));
}

ControlAnswer ask(FakeTarget& target, std::string method, std::string path, std::string body = {}) {
  return answer_control_request(target, {std::move(method), std::move(path), std::move(body)});
}

void expect_members(const json& schema, const json& body, const std::string& where) {
  std::set<std::string> members;
  for (const auto& [name, value] : body.items()) {
    members.insert(name);
    const json& property = schema["properties"][name];
    const std::string type = property["type"];
    EXPECT_TRUE((type == "string" && value.is_string()) || (type == "integer" && value.is_number_integer()) ||
                (type == "number" && value.is_number()) || (type == "array" && value.is_array()) ||
                (type == "object" && value.is_object()) || (type == "boolean" && value.is_boolean()))
        << where << ": " << name << " is no " << type;
    if (type == "object") expect_members(property, value, where + " " + name);
  }
  const auto required = schema.value("required", json::array()).get<std::set<std::string>>();
  EXPECT_TRUE(std::ranges::includes(members, required)) << where;
  std::set<std::string> known;
  for (const auto& [name, property] : schema["properties"].items()) known.insert(name);
  EXPECT_EQ(members, known) << where;
}

// The answer has just the members that the document names, of their types.
void expect_as_described(const json& document, const ControlRoute& route, const ControlAnswer& answer) {
  std::string method(route.method);
  for (char& c : method) c = static_cast<char>(std::tolower(c));
  const json& operation = document["paths"][std::string(route.path)][method];
  const auto status = std::to_string(answer.status);
  ASSERT_TRUE(operation["responses"].contains(status)) << route.path << " answers " << status;
  const json response = resolved(document, operation["responses"][status]);
  const json schema = resolved(document, response["content"]["application/json"]["schema"]);
  const json body = json::parse(answer.json);
  expect_members(schema, body, std::string(route.path));
}

TEST(ControlApi, RoutesAndDocumentSayTheSame) {
  const json document = openapi();
  std::set<std::string> described;
  for (const auto& [path, operations] : document["paths"].items())
    for (const auto& [method, operation] : operations.items()) {
      std::string row = method + " " + path;
      for (size_t i = 0; i < method.size(); ++i) row[i] = static_cast<char>(std::toupper(row[i]));
      described.insert(row);
    }
  std::set<std::string> served;
  for (const ControlRoute& route : control_routes())
    served.insert(fmt::format("{} {}", route.method, route.path));
  EXPECT_EQ(described, served);
}

TEST(ControlApi, AnswersAreAsDescribed) {
  const json document = openapi();
  for (const ControlRoute& route : control_routes()) {
    if (route.takes_files) continue;
    FakeTarget target;
    if (route.path == "/v1/resume") target.state = "paused";
    auto answer = route.handle(target, {std::string(route.method), std::string(route.path), ""});
    if (answer.waits) answer = {.json = control_end_json(7, "why")};
    EXPECT_EQ(answer.status, 200) << route.path;
    expect_as_described(document, route, answer);
  }
}

TEST(ControlApi, ASnapshotNeedsTwoFilesAndOneForEachDisk) {
  const json document = openapi();
  const auto route = std::ranges::find(control_routes(), "/v1/snapshot", &ControlRoute::path);
  ASSERT_NE(route, control_routes().end());
  FakeTarget target;
  std::optional<ControlAnswer> later;
  const auto begin = [&](size_t count) {
    later.reset();
    return begin_with_files(target, {"POST", "/v1/snapshot", ""}, std::vector<UniqueFd>(count),
                            [&](ControlAnswer said) { later = std::move(said); });
  };
  for (const size_t count : {0, 1}) {
    const auto refused = begin(count);
    ASSERT_TRUE(refused) << count;
    EXPECT_EQ(refused->status, 400);
    expect_as_described(document, *route, *refused);
  }
  EXPECT_FALSE(begin(2));
  ASSERT_TRUE(later);
  expect_as_described(document, *route, *later);
  EXPECT_FALSE(begin(4));
  EXPECT_EQ(target.calls.back(), "snapshot of 2 disks");
  target.snapshot_fails = true;
  EXPECT_FALSE(begin(2));
  ASSERT_TRUE(later);
  EXPECT_EQ(later->status, 409);
  expect_as_described(document, *route, *later);
}

TEST(ControlApi, AnUpdateIsAnsweredOnlyWhereItIsNone) {
  const json document = openapi();
  const auto route = std::ranges::find(control_routes(), "/v1/update", &ControlRoute::path);
  ASSERT_NE(route, control_routes().end());
  FakeTarget target;
  std::optional<ControlAnswer> later;
  const auto begin = [&](size_t count) {
    return begin_with_files(target, {"POST", "/v1/update", ""}, std::vector<UniqueFd>(count),
                            [&](ControlAnswer said) { later = std::move(said); });
  };
  const auto refused = begin(1);
  ASSERT_TRUE(refused);
  EXPECT_EQ(refused->status, 400);
  expect_as_described(document, *route, *refused);
  EXPECT_TRUE(target.calls.empty());
  EXPECT_FALSE(begin(0));
  EXPECT_FALSE(later);
  EXPECT_EQ(target.calls.back(), "update");
  target.snapshot_fails = true;
  EXPECT_FALSE(begin(0));
  ASSERT_TRUE(later);
  EXPECT_EQ(later->status, 409);
  expect_as_described(document, *route, *later);
}

TEST(ControlApi, AMachineIsSentWithThreeFilesAndASocket) {
  const json document = openapi();
  const auto route = std::ranges::find(control_routes(), "/v1/send", &ControlRoute::path);
  ASSERT_NE(route, control_routes().end());
  FakeTarget target;
  const auto begin = [&](size_t count) {
    return begin_with_files(target, {"POST", "/v1/send", ""}, std::vector<UniqueFd>(count), nullptr);
  };
  for (const size_t count : {0, 3, 5}) {
    const auto refused = begin(count);
    ASSERT_TRUE(refused) << count;
    EXPECT_EQ(refused->status, 400);
    expect_as_described(document, *route, *refused);
  }
  EXPECT_TRUE(target.calls.empty());
  const auto begun = begin(4);
  ASSERT_TRUE(begun);
  EXPECT_EQ(begun->status, 200);
  expect_as_described(document, *route, *begun);
  EXPECT_EQ(target.calls.back(), "send");
  target.snapshot_fails = true;
  const auto refused = begin(4);
  ASSERT_TRUE(refused);
  EXPECT_EQ(refused->status, 409);
}

TEST(ControlApi, RefusalsAreAsDescribed) {
  const json document = openapi();
  for (const ControlRoute& route : control_routes()) {
    FakeTarget target;
    target.state = "stopping";
    auto answer = route.handle(target, {std::string(route.method), std::string(route.path), "not json"});
    if (!answer.waits) expect_as_described(document, route, answer);
  }
}

TEST(ControlApi, WithoutLimitsNothingIsSaidOfThem) {
  FakeTarget target;
  target.limits = {};
  EXPECT_EQ(json::parse(ask(target, "GET", "/v1/vm").json)["limits"], json::object());
  EXPECT_FALSE(json::parse(ask(target, "GET", "/v1/stats").json).contains("limits"));
}

TEST(ControlApi, PauseAndResumeNeedTheRightState) {
  FakeTarget target;
  EXPECT_EQ(ask(target, "POST", "/v1/resume").status, 409);
  EXPECT_EQ(ask(target, "POST", "/v1/pause").status, 200);
  const auto again = ask(target, "POST", "/v1/pause");
  EXPECT_EQ(again.status, 409);
  EXPECT_NE(again.json.find("fake is paused"), std::string::npos);
  EXPECT_EQ(ask(target, "POST", "/v1/resume").status, 200);
}

TEST(ControlApi, StopTakesAGracePeriod) {
  FakeTarget target;
  EXPECT_EQ(ask(target, "POST", "/v1/stop").status, 200);
  EXPECT_EQ(ask(target, "POST", "/v1/stop", R"({"grace_seconds": 2.5})").status, 200);
  EXPECT_EQ(ask(target, "POST", "/v1/stop", "{}").status, 200);
  EXPECT_EQ(target.calls, (std::vector<std::string>{"stop", "stop 2500", "stop"}));
  for (const char* bad :
       {"[]", "null", "{", "\xff", R"({"grace_seconds": -1})", R"({"grace_seconds": 1e300})",
        R"({"grace_seconds": "5"})", R"({"grace": 5})", R"({"grace_seconds": null})"})
    EXPECT_EQ(ask(target, "POST", "/v1/stop", bad).status, 400) << bad;
  EXPECT_EQ(target.calls.size(), 3U);
}

TEST(ControlApi, WhatIsNotThereSaysWhatIs) {
  FakeTarget target;
  const auto missing = ask(target, "GET", "/v1/nothing");
  EXPECT_EQ(missing.status, 404);
  EXPECT_NE(missing.json.find("/v1/vm"), std::string::npos);
  const auto method = ask(target, "DELETE", "/v1/vm");
  EXPECT_EQ(method.status, 405);
  EXPECT_NE(method.json.find("takes GET"), std::string::npos);
}

TEST(ControlApi, TextThatIsNotUtf8DoesNotBreakTheAnswer) {
  FakeTarget target;
  EXPECT_TRUE(json::parse(ask(target, "GET", "/\xff\xfe").json).contains("error"));
}

}  // namespace
}  // namespace snug
