// <linux/kvm.h> as C++ needs it: some releases of the kernel's headers declare flexible arrays with an empty
// struct in front, which has a size in C++ and shifts both the array and the ioctl numbers.
#pragma once

#include <linux/stddef.h>
#undef __DECLARE_FLEX_ARRAY
#define __DECLARE_FLEX_ARRAY(TYPE, NAME) TYPE NAME[]
#include <linux/kvm.h>

static_assert(sizeof(kvm_cpuid2) == 8 && sizeof(kvm_msrs) == 8 && sizeof(kvm_irq_routing) == 8);
