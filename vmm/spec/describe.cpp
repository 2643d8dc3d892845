#include "vmm/spec/describe.h"

#include <fmt/format.h>

#include <vector>

#include "vmm/spec/text.h"

namespace snug {
namespace {

// Text that YAML would read as something else, or not at all, when not in quotes.
bool needs_quotes(std::string_view text) {
  constexpr std::string_view kPlain =
      "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_./+=,:@- ";
  if (text.empty() || text.find_first_not_of(kPlain) != std::string_view::npos) return true;
  const char first = text.front();
  const bool word = (first >= 'a' && first <= 'z') || (first >= 'A' && first <= 'Z') ||
                    (first >= '0' && first <= '9') || first == '/';
  const char last = text.back();
  return !word || last == ' ' || last == ':' || text.find(": ") != std::string_view::npos || text == "null" ||
         text == "Null" || text == "NULL";
}

// JSON's escapes are YAML's too. What is no text can be said in one way only.
std::string yaml_text(const std::string& text) {
  if (!is_utf8(text)) return fmt::format("!!binary {}", json_string(to_base64(text)));
  return needs_quotes(text) ? json_string(text) : text;
}

void print_keys(std::string& out, const KeyList& keys, const void* object, const std::string& indent);

void print_nested(std::string& out, const Key& key, const void* object, const std::string& indent) {
  const Nested& nested = *key.nested;
  const size_t count = nested.count(object);
  if (count == 0) return;
  out += fmt::format("{}{}:\n", indent, key.name);
  for (size_t i = 0; i < count; ++i) {
    std::string item;
    print_keys(item, nested.keys, nested.item(object, i), indent + (nested.is_list ? "    " : "  "));
    if (nested.is_list && item.empty()) item = indent + "    {}\n";
    if (nested.is_list) item.replace(indent.size() + 2, 2, "- ");
    out += item;
  }
}

void print_keys(std::string& out, const KeyList& keys, const void* object, const std::string& indent) {
  for (const auto& key : keys) {
    if (key.nested) {
      print_nested(out, key, object, indent);
      continue;
    }
    const auto texts = key.value->print(object);
    if (texts.size() == 1) out += fmt::format("{}{}: {}\n", indent, key.name, yaml_text(texts[0]));
    if (texts.size() <= 1) continue;
    out += fmt::format("{}{}:\n", indent, key.name);
    for (const auto& text : texts) out += fmt::format("{}  - {}\n", indent, yaml_text(text));
  }
}

// The members of the schema of one value, or of the list of them where that is fine too.
std::string value_schema(const Value& value) {
  if (!value.repeatable) return value.schema;
  const std::string map = value.assignments ? R"(, {"type": "object", "additionalProperties": )"
                                              R"({"type": ["string", "number", "boolean"]}})"
                                            : "";
  return fmt::format(R"("anyOf": [{{{}}}, {{"type": "array", "items": {{{}}}}}{}])", value.schema,
                     value.schema, map);
}

std::string object_schema(const KeyList& keys, const void* defaults, const std::string& indent);

std::string key_schema(const Key& key, const void* defaults, const std::string& indent) {
  std::string help(key.help);
  if (!key.default_text.empty()) help += fmt::format(" Default: {}.", key.default_text);
  std::string out = fmt::format("{{\n{}  \"description\": {},\n", indent, json_string(help));
  if (!key.nested) {
    out += fmt::format("{}  {}", indent, value_schema(*key.value));
    const auto standard = key.value->print(defaults);
    if (key.default_text.empty() && standard.size() == 1) {
      out += fmt::format(",\n{}  \"default\": {}", indent,
                         key.value->is_literal ? standard[0] : json_string(standard[0]));
    }
    if (!key.example.empty()) {
      out += fmt::format(",\n{}  \"examples\": [{}]", indent,
                         key.value->is_literal ? std::string(key.example) : json_string(key.example));
    }
    return out + fmt::format("\n{}}}", indent);
  }
  const Nested& nested = *key.nested;
  // Items of lists have no defaults to show.
  const void* inner = nested.is_list ? nullptr : nested.item(defaults, 0);
  const std::string map = object_schema(nested.keys, inner, indent + "    ");
  std::string item;
  for (const auto& inner_key : nested.keys) {
    if (inner_key.name == nested.shorthand) item += fmt::format("{{{}}}, ", value_schema(*inner_key.value));
  }
  item += fmt::format("{{\n{}\n{}  }}", map, indent);
  if (nested.is_list) item += fmt::format(", {{\"type\": \"array\", \"items\": {{\"anyOf\": [{}]}}}}", item);
  return out + fmt::format("{}  \"anyOf\": [{}]\n{}}}", indent, item, indent);
}

std::string object_schema(const KeyList& keys, const void* defaults, const std::string& indent) {
  std::string out =
      fmt::format("{}\"type\": \"object\",\n{}\"additionalProperties\": false,\n{}\"properties\": {{", indent,
                  indent, indent);
  bool first = true;
  for (const auto& key : keys) {
    Key shown = key;
    if (defaults == nullptr && !key.nested) {
      Value without_default = *key.value;
      without_default.print = [](const void*) { return std::vector<std::string>{}; };
      shown.value = std::make_shared<const Value>(std::move(without_default));
    }
    out += fmt::format("{}\n{}  {}: {}", first ? "" : ",", indent, json_string(key.name),
                       key_schema(shown, defaults, indent + "  "));
    first = false;
  }
  return out + fmt::format("\n{}}}", indent);
}

}  // namespace

std::string yaml_of(const KeyList& keys, const void* object) {
  std::string out;
  print_keys(out, keys, object, "");
  return out;
}

std::string effective_spec_yaml(const Spec& spec) { return yaml_of(spec_keys(), &spec); }

std::string schema_of(const KeyList& keys, const void* defaults) {
  return fmt::format(
      "{{\n  \"$schema\": \"https://json-schema.org/draft/2020-12/schema\",\n  \"title\": \"snug "
      "machine\",\n{}\n}}\n",
      object_schema(keys, defaults, "  "));
}

std::string json_schema() {
  const Spec defaults;
  return schema_of(spec_keys(), &defaults);
}

}  // namespace snug
