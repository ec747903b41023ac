// Work on all threads.

#pragma once

#include <algorithm>
#include <atomic>
#include <exception>
#include <thread>
#include <vector>

// Torch's own threads, by way of OpenMP's library: GOMP_parallel(function, its argument, threads, 0). Others beside them would
// wait for a core until torch's, which spin for a while when their work is done, give it up. Null until the caller knows it.
using Parallel = void (*)(void (*)(void*), void*, unsigned, unsigned);
inline std::atomic<Parallel> torch_parallel{nullptr};

// Runs `work` on at most `threads` threads, this one among them. Each call gets a function that hands out the numbers below
// `units`, each to one thread, in rising order, then -1. What `work` throws on any of them is thrown here.
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
                break;  // no more threads to be had: those there are do it
            }
        }
        run();
        for (auto& other : others) other.join();
    }
    if (failed) std::rethrow_exception(failed);
}
