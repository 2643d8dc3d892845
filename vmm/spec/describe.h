// What the table of keys says about itself: for editors and people. Any thread.
#pragma once

#include <string>

#include "vmm/spec/key.h"
#include "vmm/spec/spec.h"

namespace snug {

// JSON Schema (draft 2020-12) of a spec file, indented, ending in a newline. Editors complete and check with
// it. Stricter than the parser in one thing: numbers in quotes are refused where a number is meant.
std::string json_schema();

// The spec with every default filled in, as YAML that parses back to the same Spec.
std::string effective_spec_yaml(const Spec& spec);

// The same for any table; `object` is the struct the table describes.
std::string yaml_of(const KeyList& keys, const void* object);
// `defaults`: a default-constructed struct.
std::string schema_of(const KeyList& keys, const void* defaults);

}  // namespace snug
