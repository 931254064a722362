// Implementation of the scripted engine.
#include "scripted.hpp"

#include <algorithm>
#include <cstring>
#include <span>

namespace bench {
namespace {

constexpr std::uint64_t kNsPerMs = 1'000'000;
// How long the engine looks at the request ring after a request or a step before it sleeps, how long it sleeps at most, and
// how long before a token's time it is awake again. An engine that spun all the time would take a core to compute nothing; on
// a machine that has no third one, the kernel's other work would then take the recorder's.
constexpr std::uint64_t kIdleSpinNs = 500'000;
constexpr std::uint64_t kMostSleepMs = 100;
// From how long a sleep on the truth is written before it.
constexpr std::uint32_t kIdleMs = 50;
constexpr std::uint64_t kAwakeNs = 1'500'000;
// How long before its time the engine looks up what a step emits: for the step, and for each of its requests. Memory that
// nobody has touched for milliseconds is slow, and slow looking up would be lateness of the engine, not of what measures it.
constexpr std::uint64_t kAheadNs = 5'000;
constexpr std::uint64_t kAheadPerRequestNs = 50;
// How long step, finish and end records wait for room. Tokens never wait: a full ring must not bend the schedule.
constexpr std::uint64_t kRoomLimitNs = 30'000'000'000;
constexpr std::uint32_t kPopRecords = 64;

template <typename Record>
bench_record raw(const Record& record) noexcept {
  static_assert(sizeof(Record) == sizeof(bench_record));
  bench_record out;
  std::memcpy(&out, &record, sizeof out);
  return out;
}

std::uint64_t spin_until(std::uint64_t at_ns) noexcept {
  for (;;) {
    const std::uint64_t now_ns = clock_ns();
    if (now_ns >= at_ns) return now_ns;
  }
}

}  // namespace

void ScriptedEngine::stage(std::vector<Lengths> lengths) {
  requests_.clear();
  requests_.reserve(lengths.size());
  std::size_t events = 0;
  for (std::size_t i = 0; i < lengths.size(); ++i) {
    requests_.push_back(Request{.asked = lengths[i]});
    const ScriptedRequest& script = script_.requests[i % script_.requests.size()];
    events += script.events > 0 ? script.events : lengths[i].output_tokens;
  }
  due_.clear();
  batch_.clear();
  records_.clear();
  truth_.clear();
  refused_.clear();
  due_.reserve(lengths.size() + 1);
  batch_.reserve(lengths.size() + 1);
  records_.reserve(lengths.size() + 2);
  truth_.reserve(events);
  std::fill_n(std::back_inserter(truth_), events, Truth{});  // touches the pages before the run
  truth_.clear();
  planned_ = submitted_ = granted_ = stepping_ns_ = 0;
  running_ = 0;
}

ScriptedEngine::End ScriptedEngine::run(Tap& tap, Consumer& requests, bool stepped,
                                        const std::function<void()>& on_idle) {
  std::uint64_t idle_since_ns = clock_ns();
  std::uint64_t began_ns = idle_since_ns;  // of the step that is waited for
  for (;;) {
    const Taken taken = take_requests(requests);
    if (taken == Taken::kBroken) return End::kBrokenRing;
    if (taken == Taken::kEnd) {
      end_run(tap);
      return End::kAsked;
    }
    if (taken == Taken::kRecords) return_batch();  // something new may be due earlier
    gather_batch();
    const std::uint64_t now_ns = clock_ns();
    if (taken == Taken::kRecords) idle_since_ns = now_ns;
    const std::uint32_t sleep_ms = now_ns - idle_since_ns > kIdleSpinNs ? sleep_ms_at(now_ns) : 0;
    if (sleep_ms >= kIdleMs) on_idle();
    if (sleep_ms > 0) requests.wait(sleep_ms_at(clock_ns()));
    if (batch_.empty()) began_ns = clock_ns();
    if (sleep_ms > 0 || batch_.empty()) continue;
    const std::uint64_t ahead_ns = kAheadNs + batch_.size() * kAheadPerRequestNs;
    if (now_ns + ahead_ns < batch_.front().at_ns || (stepped && granted_ == 0)) continue;
    const std::optional<FaultKind> fault = fault_at(tap.steps());
    if (fault == FaultKind::kRaise) return End::kRaise;
    if (fault == FaultKind::kExit) return End::kExit;
    if (fault == FaultKind::kHang) return End::kHang;
    if (fault == FaultKind::kSilent) return End::kSilent;
    step(tap, began_ns, fault);
    if (granted_ > 0) --granted_;
    began_ns = idle_since_ns = clock_ns();
  }
}

std::uint32_t ScriptedEngine::sleep_ms_at(std::uint64_t now_ns) const noexcept {
  if (batch_.empty()) return kMostSleepMs;
  const std::uint64_t awake_ns = now_ns + kAwakeNs;
  const std::uint64_t at_ns = batch_.front().at_ns;
  return at_ns > awake_ns ? static_cast<std::uint32_t>(std::min((at_ns - awake_ns) / kNsPerMs, kMostSleepMs)) : 0;
}

ScriptedEngine::Taken ScriptedEngine::take_requests(Consumer& requests) {
  Taken taken = Taken::kNothing;
  for (;;) {
    bench_record records[kPopRecords];
    std::uint32_t n = 0;
    bench_look look{};
    if (requests.pop(records, kPopRecords, &n, &look) != BENCH_RING_OK) return Taken::kBroken;
    if (n == 0) return taken;
    taken = Taken::kRecords;
    for (std::uint32_t i = 0; i < n; ++i) {
      bench_submit_record record;
      std::memcpy(&record, &records[i], sizeof record);
      if (record.kind == BENCH_KIND_END) return Taken::kEnd;
      if (record.kind == BENCH_KIND_GRANT) {
        granted_ += record.request;  // where a grant keeps its steps
      } else if (record.kind == BENCH_KIND_SUBMIT) {
        submit(record.request, look.received_ns);
      } else {
        return Taken::kBroken;
      }
    }
  }
}

void ScriptedEngine::submit(std::uint32_t handle, std::uint64_t admitted_ns) {
  if (handle >= requests_.size() || requests_[handle].script != nullptr) {
    refused_.push_back(handle);
    return;
  }
  Request& request = requests_[handle];
  request.script = &script_.requests[submitted_++ % script_.requests.size()];
  request.queued_ns = admitted_ns;
  ++running_;
  plan(handle, admitted_ns + request.script->first_ns);
}

void ScriptedEngine::plan(std::uint32_t handle, std::uint64_t at_ns) {
  due_.push_back(Due{at_ns, planned_++, handle});
  std::push_heap(due_.begin(), due_.end());
}

void ScriptedEngine::gather_batch() {
  if (!batch_.empty() || due_.empty()) return;
  const std::uint64_t at_ns = due_.front().at_ns;
  while (!due_.empty() && due_.front().at_ns == at_ns) {
    std::pop_heap(due_.begin(), due_.end());
    batch_.push_back(due_.back());
    due_.pop_back();
  }
}

void ScriptedEngine::return_batch() {
  for (const Due& due : batch_) {
    due_.push_back(due);
    std::push_heap(due_.begin(), due_.end());
  }
  batch_.clear();
}

void ScriptedEngine::step(Tap& tap, std::uint64_t began_ns, std::optional<FaultKind> fault) {
  const std::uint64_t at_ns = batch_.front().at_ns;
  // The batch holds what is due first. What else is due by now is late already, and goes with it.
  while (!due_.empty() && due_.front().at_ns <= clock_ns()) {
    std::pop_heap(due_.begin(), due_.end());
    batch_.push_back(due_.back());
    due_.pop_back();
  }
  if (fault == FaultKind::kLose) {
    requests_[batch_.front().request].ended = true;
    --running_;
    batch_.erase(batch_.begin());
  }
  const std::uint32_t number = tap.steps();
  const std::size_t first = truth_.size();
  foresee();
  const std::span<const Truth> foreseen(truth_.data() + first, truth_.size() - first);
  const std::uint64_t emitted_ns = spin_until(at_ns);
  if (tap.begin_step(static_cast<std::uint32_t>(foreseen.size()))) [[likely]] {
    for (const Truth& event : foreseen) tap.add(event.request, event.tokens);
  }
  tap.publish_step();
  const std::uint64_t pushed_ns = clock_ns();
  for (std::size_t i = first; i < truth_.size(); ++i) truth_[i].emitted_ns = emitted_ns;

  bench_step_record record{};
  record.kind = BENCH_KIND_STEP;
  record.step = number;
  record.started_ns = began_ns;
  record.tap_push_ns = static_cast<std::uint32_t>(pushed_ns - emitted_ns);
  record.token_events = tap.events();
  records_.clear();
  records_.push_back(bench_record{});
  advance(record, emitted_ns, fault);
  record.running = static_cast<std::uint16_t>(std::min<std::uint32_t>(running_, 0xFFFF));
  record.ended_ns = clock_ns();
  stepping_ns_ += record.ended_ns - record.started_ns;
  records_.front() = raw(record);
  push_records(tap);
}

void ScriptedEngine::foresee() {
  for (const Due& due : batch_) {
    const Request& request = requests_[due.request];
    truth_.push_back(Truth{due.request, tokens_of(request, request.next_event), due.at_ns, BENCH_ABSENT_NS});
  }
}

void ScriptedEngine::advance(bench_step_record& record, std::uint64_t emitted_ns, std::optional<FaultKind> fault) {
  for (const Due& due : batch_) {
    Request& request = requests_[due.request];
    const std::uint32_t event = request.next_event++;
    request.tokens += tokens_of(request, event);
    if (event == 0) {
      request.first_token_ns = emitted_ns;
      ++record.prefill_requests;
      record.prefill_tokens += request.asked.prompt_tokens - std::min(request.asked.prompt_tokens, request.script->cached);
    } else {
      ++record.decode_requests;
      ++record.decode_tokens;
    }
    const bool is_cut = fault == FaultKind::kWrongLength && &due == &batch_.front();
    if (request.next_event >= events_of(request) || is_cut) {
      finish(due.request, record.step, emitted_ns, request.script->finish);
    } else {
      plan(due.request, due.at_ns + gap_after(request, event));
    }
  }
  batch_.clear();
}

void ScriptedEngine::finish(std::uint32_t handle, std::uint32_t step, std::uint64_t last_token_ns,
                            std::uint32_t reason) {
  Request& request = requests_[handle];
  request.ended = true;
  --running_;
  bench_finish_record record{};
  record.kind = BENCH_KIND_FINISH;
  record.count = static_cast<std::uint8_t>(reason);
  record.step = step;
  record.queued_ns = record.scheduled_ns = request.queued_ns;
  record.first_token_ns = request.first_token_ns;
  record.last_token_ns = last_token_ns;
  record.request = handle;
  record.prompt_tokens = request.asked.prompt_tokens;
  record.output_tokens = request.tokens;
  record.cached_tokens = request.script->cached;
  records_.push_back(raw(record));
}

void ScriptedEngine::push_records(Tap& tap) {
  tap.push_in_the_end(records_.data(), static_cast<std::uint32_t>(records_.size()), kRoomLimitNs);
}

void ScriptedEngine::end_run(Tap& tap) {
  const std::uint32_t steps = tap.steps();
  records_.clear();
  constexpr std::uint32_t kAbort = 3;
  for (std::uint32_t handle = 0; handle < requests_.size(); ++handle) {
    if (requests_[handle].script != nullptr && !requests_[handle].ended) {
      finish(handle, steps, BENCH_ABSENT_NS, kAbort);
    }
  }
  bench_ended_record record{};
  record.kind = BENCH_KIND_ENDED;
  record.step = steps;
  record.steps = steps;
  records_.push_back(raw(record));
  push_records(tap);
}

std::optional<FaultKind> ScriptedEngine::fault_at(std::uint32_t step) const noexcept {
  for (const ScriptedFault& fault : script_.faults) {
    if (fault.at_step == step) return fault.kind;
  }
  return std::nullopt;
}

std::uint32_t ScriptedEngine::events_of(const Request& request) const noexcept {
  return request.script->events > 0 ? request.script->events : request.asked.output_tokens;
}

std::uint64_t ScriptedEngine::gap_after(const Request& request, std::uint32_t event) const noexcept {
  const ScriptedRequest& script = *request.script;
  return script.first_gap == ScriptedRequest::kNone ? script.gap_ns : script_.gaps_ns[script.first_gap + event];
}

std::uint16_t ScriptedEngine::tokens_of(const Request& request, std::uint32_t event) const noexcept {
  const ScriptedRequest& script = *request.script;
  return script.first_count == ScriptedRequest::kNone ? 1 : script_.counts[script.first_count + event];
}

}  // namespace bench
