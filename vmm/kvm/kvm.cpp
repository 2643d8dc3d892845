#include "vmm/kvm/kvm.h"

#include <fcntl.h>
#include <sys/ioctl.h>
#include <sys/stat.h>

#include <array>
#include <fstream>

#include "vmm/kvm/uapi.h"

namespace snug::kvm {
namespace {

struct RequiredCapability {
  int number;
  const char* name;
};

constexpr std::array kRequired{
    RequiredCapability{KVM_CAP_USER_MEMORY, "user memory regions"},
    RequiredCapability{KVM_CAP_IRQCHIP, "in-kernel interrupt chip"},
    RequiredCapability{KVM_CAP_EXT_CPUID, "CPUID"},
    RequiredCapability{KVM_CAP_SET_TSS_ADDR, "TSS address"},
    RequiredCapability{KVM_CAP_IRQFD, "irqfd"},
    RequiredCapability{KVM_CAP_IOEVENTFD, "ioeventfd"},
    RequiredCapability{KVM_CAP_SIGNAL_MSI, "MSI"},
    RequiredCapability{KVM_CAP_IMMEDIATE_EXIT, "immediate exit (Linux 4.13)"},
    RequiredCapability{KVM_CAP_READONLY_MEM, "read-only memory slots"},
};

bool cpu_has_virtualization() {
  std::ifstream cpuinfo("/proc/cpuinfo");
  for (std::string line; std::getline(cpuinfo, line);) {
    if (!line.starts_with("flags")) continue;
    line += ' ';
    return line.find(" vmx ") != std::string::npos || line.find(" svm ") != std::string::npos;
  }
  return false;
}

tl::unexpected<Error> open_error(const std::string& path, int error_number, OpenFailure& failure) {
  switch (error_number) {
    case ENOENT:
    case ENODEV:
    case ENXIO:
      failure = OpenFailure::kMissing;
      if (!cpu_has_virtualization())
        return fail_with_hint(path + ": not there, and this CPU shows no VT-x or AMD-V",
                              "switch virtualisation on in the firmware, or, in a virtual machine or cloud, "
                              "ask for nested virtualisation");
      return fail_with_hint(path + ": not there",
                            "load the module: sudo modprobe kvm_intel || sudo modprobe kvm_amd");
    case EACCES:
    case EPERM:
      failure = OpenFailure::kNoPermission;
      return fail_with_hint(path + ": permission denied",
                            "add yourself to group kvm, then log in again: sudo usermod -aG kvm $USER");
    case EBUSY:
      failure = OpenFailure::kBusy;
      return fail_with_hint(
          path + ": busy", "another hypervisor (VirtualBox, VMware) holds the CPU's virtualisation; stop it");
    default:
      failure = OpenFailure::kOther;
      return fail_errno(error_number, "open {}", path);
  }
}

}  // namespace

Result<Kvm> Kvm::open(const std::string& path, OpenFailure* failure_out) {
  OpenFailure ignored{};
  OpenFailure& failure = failure_out != nullptr ? *failure_out : ignored;
  failure = OpenFailure::kNone;
  Kvm kvm;
  kvm.fd_ = UniqueFd(::open(path.c_str(), O_RDWR | O_CLOEXEC));
  if (!kvm.fd_) return open_error(path, errno, failure);
  const int version = ::ioctl(kvm.fd_.get(), KVM_GET_API_VERSION, 0);
  if (version != KVM_API_VERSION) {
    failure = OpenFailure::kWrongVersion;
    if (version < 0) return fail("{}: not a KVM device", path);
    return fail("{}: KVM API version {}, snug needs {}", path, version, KVM_API_VERSION);
  }
  for (const auto& [number, name] : kRequired) {
    if (kvm.capability(number) > 0) continue;
    failure = OpenFailure::kMissingCapability;
    return fail_with_hint(fmt::format("{}: this KVM lacks {}", path, name),
                          "update the host's kernel (5.10 or newer)");
  }
  const int size = ::ioctl(kvm.fd_.get(), KVM_GET_VCPU_MMAP_SIZE, 0);
  if (size < 0) return fail_errno(errno, "{}: KVM_GET_VCPU_MMAP_SIZE", path);
  kvm.run_area_size_ = static_cast<size_t>(size);
  kvm.coalesces_writes_ = kvm.capability(KVM_CAP_COALESCED_PIO) > 0;
  return kvm;
}

int Kvm::capability(int number) const {
  const int value = ::ioctl(fd_.get(), KVM_CHECK_EXTENSION, number);
  return value < 0 ? 0 : value;
}

uint32_t Kvm::max_vcpus() const {
  const int hard = capability(KVM_CAP_MAX_VCPUS);
  const int soft = capability(KVM_CAP_NR_VCPUS);
  return static_cast<uint32_t>(hard > 0 ? hard : soft > 0 ? soft : 4);
}

uint32_t Kvm::coalesced_ring_page() const {
  return static_cast<uint32_t>(capability(KVM_CAP_COALESCED_MMIO));
}

bool Kvm::has_tsc_deadline() const { return capability(KVM_CAP_TSC_DEADLINE_TIMER) > 0; }

}  // namespace snug::kvm
