// A value that can only be reached with its lock held. Bus and transports lock a device through this, so
// that a device's own code has no locks.
#pragma once

#include <mutex>
#include <utility>

namespace snug {

template <class T>
class Synced {
 public:
  template <class... Args>
  explicit Synced(Args&&... args) : value_(std::forward<Args>(args)...) {}
  Synced(const Synced&) = delete;
  Synced& operator=(const Synced&) = delete;

  class Guard {
   public:
    T* operator->() { return &value_; }
    T& operator*() { return value_; }

   private:
    friend Synced;
    Guard(std::mutex& mutex, T& value) : lock_(mutex), value_(value) {}
    std::unique_lock<std::mutex> lock_;
    T& value_;
  };

  // Blocks until no other thread holds it.
  Guard lock() { return Guard(mutex_, value_); }

  // For the bus only, which keeps devices of many types in one table: lock mutex() before touching
  // unguarded().
  std::mutex& mutex() { return mutex_; }
  T& unguarded() { return value_; }

 private:
  std::mutex mutex_;
  T value_;
};

}  // namespace snug
