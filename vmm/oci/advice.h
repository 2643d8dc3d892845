// What a person can do about an image that cannot be had. The words are those of skopeo(1), of registries and
// of daemons, which give a reason as text only: what is not recognised stays as it is.
//
// Thread: any.
#pragma once

#include "vmm/base/result.h"
#include "vmm/oci/reference.h"

namespace snug::oci {

// With what can be done about a full disk, if it is about one.
Error with_room_hint(Error error);

// The same, and what can be done about a source that refuses, or lacks, the image. An error that has advice
// keeps it.
Error with_advice(Error error, const Reference& reference);

}  // namespace snug::oci
