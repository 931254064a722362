// The scripted engine: emits tokens on a schedule, through the same tap, ring and records as vLLM's tokens.
//
// It spins before each token, in compiled code, so that a schedule of 1,000 streams is kept to within a microsecond where it
// is possible at all; in long gaps it sleeps. What it really did is kept as the truth that the harness's numbers are checked
// against.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "ring.hpp"
#include "tap.hpp"

namespace bench {

// What a request of the script does. Times in nanoseconds.
struct ScriptedRequest {
  std::uint64_t first_ns;     // from admission to the first token event
  std::uint64_t gap_ns;       // between token events, where no list is given
  std::uint32_t events;       // token events; 0: as many as tokens are asked
  std::uint32_t first_gap;    // where its gaps begin in Script::gaps_ns; kNone: all are gap_ns
  std::uint32_t first_count;  // where its counts begin in Script::counts; kNone: all are 1
  std::uint32_t cached;       // prompt tokens that it says came from the cache
  std::uint32_t finish;       // reason of its finish record

  static constexpr std::uint32_t kNone = 0xFFFFFFFF;
};

enum class FaultKind : std::uint32_t { kRaise = 0, kExit = 1, kHang = 2, kSilent = 3, kLose = 4, kWrongLength = 5 };

struct ScriptedFault {
  std::uint32_t at_step;
  FaultKind kind;
};

struct Script {
  std::vector<ScriptedRequest> requests;  // used in the order of submission, and repeated
  std::vector<std::uint64_t> gaps_ns;
  std::vector<std::uint16_t> counts;
  std::vector<ScriptedFault> faults;
};

// A token event as it was meant, and as it was emitted: before the tap is entered.
struct Truth {
  std::uint32_t request;
  std::uint32_t tokens;
  std::uint64_t intended_ns;
  std::uint64_t emitted_ns;
};

class ScriptedEngine {
 public:
  struct Lengths {
    std::uint32_t prompt_tokens;
    std::uint32_t output_tokens;
  };
  // How a window ended; the first two by themselves, the others by a fault.
  enum class End { kAsked, kBrokenRing, kRaise, kExit, kHang, kSilent };

  explicit ScriptedEngine(Script script) : script_(std::move(script)) {}

  // The requests of the next run, by handle. What the run before left is forgotten.
  void stage(std::vector<Lengths> lengths);
  // One run: until the harness ends it, or a fault does. `stepped`: a step only where the harness has granted one.
  // `on_idle` is called where nothing is due for long enough that its work bends no schedule.
  End run(Tap& tap, Consumer& requests, bool stepped, const std::function<void()>& on_idle);

  std::uint64_t stepping_ns() const noexcept { return stepping_ns_; }
  // Handles that were refused: not staged, or submitted twice.
  const std::vector<std::uint32_t>& refused() const noexcept { return refused_; }
  const std::vector<Truth>& truth() const noexcept { return truth_; }

 private:
  struct Request {
    Lengths asked;
    const ScriptedRequest* script = nullptr;  // null until it is submitted
    std::uint64_t queued_ns = 0;
    std::uint64_t first_token_ns = BENCH_ABSENT_NS;
    std::uint32_t next_event = 0;
    std::uint32_t tokens = 0;
    bool ended = false;
  };
  struct Due {
    std::uint64_t at_ns;
    std::uint64_t order;  // of two at one time, the one that was planned first
    std::uint32_t request;
    bool operator<(const Due& other) const noexcept {
      return at_ns != other.at_ns ? at_ns > other.at_ns : order > other.order;
    }
  };

  enum class Taken { kNothing, kRecords, kEnd, kBroken };

  Taken take_requests(Consumer& requests);
  void submit(std::uint32_t handle, std::uint64_t admitted_ns);
  void plan(std::uint32_t handle, std::uint64_t at_ns);
  // Moves what is due at the earliest time from the heap into the batch, or puts the batch back.
  void gather_batch();
  void return_batch();
  // How long it may sleep from `now_ns` and still be awake well before the batch's time.
  std::uint32_t sleep_ms_at(std::uint64_t now_ns) const noexcept;
  // Emits the batch as one step when its time has come, and what is late by now with it.
  void step(Tap& tap, std::uint64_t began_ns, std::optional<FaultKind> fault);
  // Writes down what the batch is about to emit.
  void foresee();
  void advance(bench_step_record& record, std::uint64_t emitted_ns, std::optional<FaultKind> fault);
  void finish(std::uint32_t handle, std::uint32_t step, std::uint64_t last_token_ns, std::uint32_t reason);
  void push_records(Tap& tap);
  void end_run(Tap& tap);
  std::optional<FaultKind> fault_at(std::uint32_t step) const noexcept;
  std::uint32_t events_of(const Request& request) const noexcept;
  std::uint64_t gap_after(const Request& request, std::uint32_t event) const noexcept;
  std::uint16_t tokens_of(const Request& request, std::uint32_t event) const noexcept;

  Script script_;
  std::vector<Request> requests_;
  std::vector<Due> due_;  // a heap, the earliest first
  std::vector<Due> batch_;
  std::vector<bench_record> records_;
  std::vector<Truth> truth_;
  std::vector<std::uint32_t> refused_;
  std::uint64_t planned_ = 0;
  std::uint64_t submitted_ = 0;
  std::uint64_t granted_ = 0;
  std::uint64_t stepping_ns_ = 0;
  std::uint32_t running_ = 0;
};

}  // namespace bench
