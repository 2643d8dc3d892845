#include "vmm/shares/queue_threads.h"

#include <sys/epoll.h>
#include <sys/prctl.h>
#include <unistd.h>

#include <utility>

namespace snug {
namespace {

constexpr uint64_t kMore = ~uint64_t{0};

void add_one(int event_fd) {
  const uint64_t one = 1;
  (void)!::write(event_fd, &one, sizeof one);
}

// Edge-triggered: each addition wakes one thread, and nobody has to read what was added.
int watch(int epoll, int event_fd, uint64_t what) {
  epoll_event event{};
  event.events = EPOLLIN | EPOLLET;
  event.data.u64 = what;
  return ::epoll_ctl(epoll, EPOLL_CTL_ADD, event_fd, &event) == 0 ? 0 : errno;
}

}  // namespace

Result<std::unique_ptr<QueueThreads>> QueueThreads::create(Events events, unsigned threads,
                                                           std::function<void()> thread_begins) {
  std::unique_ptr<QueueThreads> all(new QueueThreads(std::move(events), std::move(thread_begins)));
  all->epoll_ = UniqueFd(::epoll_create1(EPOLL_CLOEXEC));
  if (!all->epoll_) return fail_errno(errno, "epoll_create");
  all->more_ = SNUG_TRY(make_eventfd());
  if (const int error = watch(all->epoll_.get(), all->more_.get(), kMore); error != 0)
    return fail_errno(error, "epoll_ctl");
  for (unsigned i = 0; i < threads; ++i) {
    try {
      all->threads_.emplace_back([self = all.get()] { self->run(); });
    } catch (const std::system_error& error) {
      if (all->threads_.empty()) return fail_errno(error.code().value(), "a thread for a share");
      break;
    }
  }
  return all;
}

QueueThreads::~QueueThreads() {
  ended_ = true;
  detach();
  for (size_t i = 0; i < threads_.size(); ++i) add_one(more_.get());
  for (std::thread& thread : threads_) {
    // A wake-up that found nobody waiting is one for the next who does.
    thread.join();
  }
}

std::shared_ptr<QueueThreads::Machine> QueueThreads::machine() {
  const std::lock_guard lock(mutex_);
  return machine_;
}

Result<void> QueueThreads::attach(uint32_t number, GuestMemory memory, std::vector<UniqueFd> kicks) {
  detach();
  auto machine = std::make_shared<Machine>(number, std::move(memory));
  for (UniqueFd& kick : kicks) {
    machine->queues.push_back(std::make_unique<Queue>(machine->memory));
    machine->queues.back()->kick = std::move(kick);
  }
  for (size_t i = 0; i < machine->queues.size(); ++i)
    if (const int error = watch(epoll_.get(), machine->queues[i]->kick.get(), i); error != 0)
      return fail_errno(error, "epoll_ctl");
  const std::lock_guard lock(mutex_);
  machine_ = std::move(machine);
  return {};
}

void QueueThreads::detach() {
  std::shared_ptr<Machine> old;
  {
    const std::lock_guard lock(mutex_);
    old = std::exchange(machine_, nullptr);
  }
  if (!old) return;
  std::unique_lock lock(old->mutex);
  old->running = old->stopping = old->held = old->holding = false;
  for (const auto& queue : old->queues) {
    // The device has the same eventfd open: closing ours would not end it.
    ::epoll_ctl(epoll_.get(), EPOLL_CTL_DEL, queue->kick.get(), nullptr);
    queue->ring.stop();
  }
  // What a thread has taken it serves, whoever the session is with by then.
  old->at_rest.wait(lock, [&old] { return old->under_way == 0; });
}

std::string QueueThreads::start(const VirtQueueFeatures& features, std::vector<Ring> rings,
                                SectionReader* saved) {
  {
    const std::lock_guard lock(machine_->mutex);
    if (machine_->running || rings.size() != machine_->queues.size()) return "started twice";
    if (saved != nullptr && saved->number<uint32_t>() != rings.size()) return "a state of other rings";
    for (size_t i = 0; i < rings.size(); ++i) {
      Queue& queue = *machine_->queues[i];
      if (rings[i].layout.size == 0) continue;
      if (std::string wrong = queue.ring.start(rings[i].layout, features); !wrong.empty()) return wrong;
      if (saved != nullptr) queue.ring.restore(*saved);
      queue.interrupt = std::move(rings[i].interrupt);
    }
    if (saved != nullptr)
      if (const auto read = saved->finish(); !read) return read.error().text();
    machine_->running = true;
    machine_->broken = machine_->held = machine_->holding = false;
    ++machine_->driver;
  }
  // What was asked for before this was known.
  add_one(more_.get());
  return {};
}

void QueueThreads::stop() {
  {
    const std::lock_guard lock(machine_->mutex);
    machine_->running = false;
    for (const auto& queue : machine_->queues) queue->ring.stop();
    machine_->stopping = machine_->under_way > 0;
    if (machine_->stopping) return;
  }
  events_.stopped(machine_->number);
}

bool QueueThreads::hold() {
  {
    const std::lock_guard lock(machine_->mutex);
    if (!machine_->running) return false;
    machine_->held = true;
    machine_->holding = machine_->under_way > 0;
    if (machine_->holding) return true;
  }
  events_.held(machine_->number);
  return true;
}

// Doorbells that have rung meanwhile were heard, and nobody went.
void QueueThreads::release() {
  {
    const std::lock_guard lock(machine_->mutex);
    machine_->held = machine_->holding = false;
  }
  call_another();
}

void QueueThreads::save(SectionWriter& out) {
  const std::lock_guard lock(machine_->mutex);
  out.number(static_cast<uint32_t>(machine_->queues.size()));
  for (const auto& queue : machine_->queues)
    if (queue->ring.running()) queue->ring.save(out);
}

void QueueThreads::move_interrupt(size_t queue, UniqueFd interrupt) {
  const std::lock_guard lock(machine_->mutex);
  machine_->queues[queue]->interrupt = std::move(interrupt);
}

// --- the threads ------------------------------------------------------------------------------------------

void QueueThreads::run() {
  if (thread_begins_) thread_begins_();
  while (!ended_) {
    epoll_event event{};
    const int count = ::epoll_wait(epoll_.get(), &event, 1, -1);
    if (count != 1) continue;
    const auto current = machine();
    if (!current) continue;
    if (event.data.u64 < current->queues.size()) {
      work(*current, static_cast<uint16_t>(event.data.u64));
      continue;
    }
    for (uint16_t queue = 0; queue < current->queues.size(); ++queue) work(*current, queue);
  }
  call_another();
}

void QueueThreads::call_another() { add_one(more_.get()); }

void QueueThreads::work(Machine& machine, uint16_t queue) {
  // Its memory is used again by the next one.
  thread_local VirtChain chain;
  Ticket ticket;
  while (take(machine, queue, chain, ticket)) {
    const auto written = events_.serve(machine.memory, chain, ticket.number());
    if (written) give_back(machine, ticket, *written);
    put_down(machine);
  }
}

bool QueueThreads::take(Machine& machine, uint16_t index, VirtChain& chain, Ticket& ticket) {
  const std::unique_lock lock(machine.mutex);
  VirtQueue& ring = machine.queues[index]->ring;
  if (!machine.running || machine.broken || machine.held) return false;
  for (;;) {
    const auto popped = ring.pop(chain);
    if (popped == VirtQueue::Pop::kBroken) {
      machine.broken = true;
      events_.broken(machine.number, ring.why());
      return false;
    }
    // The doorbell of the next one is wanted even while this one is served: it may take long.
    const bool more = ring.enable_notifications();
    if (popped == VirtQueue::Pop::kEmpty) {
      if (more) continue;
      return false;
    }
    // Also when all are busy: one that is about to be done with another queue would not look into this one.
    if (more) call_another();
    ++machine.under_way;
    ticket = {machine.driver, index, chain.head};
    return true;
  }
}

void QueueThreads::give_back(Machine& machine, const Ticket& ticket, uint32_t written) {
  const std::lock_guard lock(machine.mutex);
  if (!machine.running || machine.broken || ticket.driver != machine.driver ||
      ticket.queue >= machine.queues.size())
    return;
  Queue& queue = *machine.queues[ticket.queue];
  (void)queue.ring.push(ticket.head, written);
  if (queue.ring.needs_interrupt()) add_one(queue.interrupt.get());
}

void QueueThreads::put_down(Machine& machine) {
  const std::lock_guard lock(machine.mutex);
  if (--machine.under_way > 0) return;
  if (std::exchange(machine.stopping, false)) events_.stopped(machine.number);
  if (std::exchange(machine.holding, false)) events_.held(machine.number);
  machine.at_rest.notify_all();
}

void QueueThreads::finish(uint64_t ticket, uint32_t written) {
  if (const auto current = machine()) give_back(*current, Ticket::of(ticket), written);
}

}  // namespace snug
