#include "trainer/profile/profile_statistics.h"

#include <algorithm>
#include <chrono>

#include "runtime/comm/control.h"

namespace trireme {

double Spread(const std::vector<double>& values) {
  const auto [low, high] = std::minmax_element(values.begin(), values.end());
  return (*high - *low) / Median(values);
}

double SecondsOf(const std::function<void()>& run) {
  using Clock = std::chrono::steady_clock;
  const Clock::time_point start = Clock::now();
  run();
  return std::chrono::duration<double>(Clock::now() - start).count();
}

std::vector<double> TimesOf(int repetitions, const std::function<void()>& run) {
  run();
  std::vector<double> times;
  for (int i = 0; i < repetitions; ++i) times.push_back(SecondsOf(run));
  return times;
}

int RepetitionsWithin(double within_s, double once_s, int most) {
  return static_cast<int>(
      std::clamp<double>(within_s / once_s, std::min(3, most), most));
}

std::vector<std::vector<double>> GatherRows(Communicator& world,
                                            const std::vector<double>& own) {
  const size_t count = own.size();
  std::vector<double> all(count * world.size(), 0.0);
  std::copy(own.begin(), own.end(), all.begin() + count * world.rank());
  Control(world).Sum(all, "profile");
  std::vector<std::vector<double>> rows;
  for (int rank = 0; rank < world.size(); ++rank) {
    const auto row = all.begin() + count * rank;
    rows.emplace_back(row, row + count);
  }
  return rows;
}

}  // namespace trireme
