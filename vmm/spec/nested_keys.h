// The keys of the maps within a spec: rows as in key_table.cpp, a table for each kind of map.
#pragma once

#include "vmm/spec/key.h"
#include "vmm/spec/spec.h"

namespace snug {

constexpr size_t kPortsMax = 256;  // of one interface

Keys<LogSpec> log_keys();
Keys<DiskSpec> disk_keys();
Keys<NetSpec> net_keys();
Keys<VsockSpec> vsock_keys();
Keys<HvcSpec> hvc_keys();
Keys<ChannelSpec> channel_keys();
Keys<ShareSpec> share_keys();
Keys<LimitsSpec> limit_keys();

}  // namespace snug
