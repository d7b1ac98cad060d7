// Loops over XLA's threads.
#ifndef MTNET_JAX_NATIVE_PARALLEL_H_
#define MTNET_JAX_NATIVE_PARALLEL_H_

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <memory>
#include <mutex>
#include <utility>

#include "xla/ffi/api/ffi.h"

namespace mtnet {

// Calls f(begin, end) for pieces of [0, count), `piece` long but for the last.
// The calling thread works too, and never waits for a thread that has not
// begun: one that comes late finds nothing left.
template <typename F>
void ParallelFor(xla::ffi::ThreadPool& pool, int64_t count, int64_t piece,
                 const F& f) {
  piece = std::max<int64_t>(piece, 1);
  const int64_t pieces = (count + piece - 1) / piece;
  const int64_t helpers = std::min<int64_t>(pool.num_threads(), pieces) - 1;
  struct State {
    std::atomic<int64_t> next{0}, done{0};
    std::mutex mutex;
    std::condition_variable all_done;
  };
  auto state = std::make_shared<State>();
  auto work = [state, pieces, piece, count, &f] {
    for (;;) {
      const int64_t i = state->next.fetch_add(1);
      if (i >= pieces) return;
      f(i * piece, std::min(count, (i + 1) * piece));
      if (state->done.fetch_add(1) + 1 == pieces) {
        std::lock_guard<std::mutex> lock(state->mutex);
        state->all_done.notify_all();
      }
    }
  };
  for (int64_t i = 0; i < helpers; ++i) {
    auto task = work;
    pool.Schedule(std::move(task));
  }
  work();
  std::unique_lock<std::mutex> lock(state->mutex);
  state->all_done.wait(lock, [&] { return state->done.load() == pieces; });
}

}  // namespace mtnet

#endif  // MTNET_JAX_NATIVE_PARALLEL_H_
