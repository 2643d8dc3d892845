// Works on the rings of one share's device: a few threads take requests out, have them served and give them
// back, with one system call to wake up by and one to interrupt the guest. A request that takes its time
// keeps one of them, and the next doorbell wakes another.
//
// Owner: a ShareService. Thread: everything on the owner's but finish(), which is for any.
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "devices/virtio/queue.h"
#include "vmm/base/result.h"
#include "vmm/base/unique_fd.h"
#include "vmm/core/guest_memory.h"
#include "vmm/core/state.h"

namespace snug {

class QueueThreads {
 public:
  struct Events {
    // A request; any of the threads. The bytes written into it; nothing: finish(ticket) comes later.
    std::function<std::optional<uint32_t>(const GuestMemory&, const VirtChain&, uint64_t ticket)> serve;
    // Any of the threads: a ring is broken, so many words say how, and none is served any more / nothing is
    // under way after stop(). `machine`: as it was attached.
    std::function<void(uint32_t machine, const std::string& why)> broken;
    std::function<void(uint32_t machine)> stopped;
    // Nothing is under way after hold().
    std::function<void(uint32_t machine)> held;
  };
  struct Ring {
    VirtQueueLayout layout;  // size 0: not in use
    UniqueFd interrupt;
  };

  // `thread_begins`: what each thread does before all else; may be empty. Errors: the host's.
  static Result<std::unique_ptr<QueueThreads>> create(Events events, unsigned threads,
                                                      std::function<void()> thread_begins);
  // Waits for what is under way.
  ~QueueThreads();

  // Another machine's memory and doorbells, one for each queue. `number`: what the events are to know it by.
  Result<void> attach(uint32_t number, GuestMemory memory, std::vector<UniqueFd> kicks);
  // Waits for what is under way: afterwards nobody touches the machine's memory.
  void detach();
  size_t queue_count() const { return machine_ ? machine_->queues.size() : 0; }
  // "" or what is wrong with the rings, one for each queue. `saved`: where they stand; nullptr: at their
  // beginning.
  std::string start(const VirtQueueFeatures& features, std::vector<Ring> rings,
                    SectionReader* saved = nullptr);
  // No further request is taken; `stopped` is called when the last one is done, perhaps at once.
  void stop();
  // The machine stands still: as stop(), but the rings stay, and release() goes on with them. False: it has
  // no driver.
  bool hold();
  void release();
  // Where the rings stand; only while held.
  void save(SectionWriter& out);
  void move_interrupt(size_t queue, UniqueFd interrupt);
  void finish(uint64_t ticket, uint32_t written);

 private:
  // A request, in the numbers that name it outside.
  struct Ticket {
    uint32_t driver = 0;  // which start() it belongs to
    uint16_t queue = 0;
    uint16_t head = 0;
    uint64_t number() const { return uint64_t{driver} << 32 | uint64_t{queue} << 16 | head; }
    static Ticket of(uint64_t number) {
      return {static_cast<uint32_t>(number >> 32), static_cast<uint16_t>(number >> 16),
              static_cast<uint16_t>(number)};
    }
  };
  struct Queue {
    explicit Queue(const GuestMemory& memory) : ring(memory) {}
    VirtQueue ring;
    UniqueFd kick;
    UniqueFd interrupt;
  };
  // Lives as long as somebody works for it.
  struct Machine {
    Machine(uint32_t known_by, GuestMemory all) : number(known_by), memory(std::move(all)) {}
    const uint32_t number;
    const GuestMemory memory;
    std::mutex mutex;  // guards what follows
    std::vector<std::unique_ptr<Queue>> queues;
    uint32_t driver = 0;  // counts starts
    bool running = false;
    bool broken = false;
    bool stopping = false;
    bool held = false;
    bool holding = false;  // held, and something is under way
    unsigned under_way = 0;
    std::condition_variable at_rest;  // under_way is 0
  };

  QueueThreads(Events events, std::function<void()> thread_begins)
      : events_(std::move(events)), thread_begins_(std::move(thread_begins)) {}
  std::shared_ptr<Machine> machine();
  void run();
  void work(Machine& machine, uint16_t queue);
  bool take(Machine& machine, uint16_t queue, VirtChain& chain, Ticket& ticket);
  void give_back(Machine& machine, const Ticket& ticket, uint32_t written);
  void put_down(Machine& machine);
  void call_another();

  Events events_;
  std::function<void()> thread_begins_;
  UniqueFd epoll_;
  UniqueFd more_;  // adding 1 wakes another thread
  std::atomic<bool> ended_ = false;
  std::mutex mutex_;  // guards the next one
  std::shared_ptr<Machine> machine_;
  std::vector<std::thread> threads_;
};

}  // namespace snug
