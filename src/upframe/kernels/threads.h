// Run work on several threads.

#pragma once

#include <algorithm>
#include <atomic>
#include <exception>
#include <thread>
#include <vector>

// Torch's own threads, by the OpenMP library: GOMP_parallel(function, its argument, threads, 0). Other threads would wait for a
// core, since torch's threads spin for a while after their work. Null until the caller sets it.
using Parallel = void (*)(void (*)(void*), void*, unsigned, unsigned);
inline std::atomic<Parallel> torch_parallel{nullptr};

// Runs `work` on at most `threads` threads, this one among them. Each call gets a function that returns the numbers below
// `units` in rising order, each to one thread, then -1. Exceptions of `work` on any thread are thrown again here.
template <typename Work>
void in_parallel(int units, int threads, Work&& work) {
    std::atomic<int> given{0};
    std::exception_ptr failed;
    std::atomic<bool> has_failed{false};
    auto run = [&] {
        try {
            work([&] {
                const int unit = given.fetch_add(1, std::memory_order_relaxed);
                return unit < units ? unit : -1;
            });
        } catch (...) {
            if (!has_failed.exchange(true)) failed = std::current_exception();
            given = units;  // the others stop
        }
    };
    const int wanted = std::min(threads, units);
    if (const Parallel parallel = torch_parallel; parallel && wanted > 1) {
        parallel([](void* it) { (*static_cast<decltype(run)*>(it))(); }, &run, wanted, 0);
    } else {
        std::vector<std::thread> others;
        for (int i = 1; i < wanted; i++) {
            try {
                others.emplace_back(run);
            } catch (...) {
                break;  // no more threads available: the existing ones do the work
            }
        }
        run();
        for (auto& other : others) other.join();
    }
    if (failed) std::rethrow_exception(failed);
}
