#include "trainer/profile/profile_statistics.h"

#include <algorithm>
#include <chrono>

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

std::vector<std::vector<double>> GatherRows(Device& device, Communicator& world,
                                            const std::vector<double>& own) {
  const auto count = static_cast<int64_t>(own.size());
  const Tensor input = Tensor::FromValues<double>(
      device, {1, count}, own, MemoryCategory::kCommunication, "profile");
  const Tensor all =
      Tensor::Empty(device, {world.size(), count}, DType::kFloat64,
                    MemoryCategory::kCommunication, "profile");
  world.AllGather(input, all, "profile").Wait();
  const std::vector<double> flat = all.ToVector<double>();
  std::vector<std::vector<double>> rows;
  rows.reserve(world.size());
  for (int rank = 0; rank < world.size(); ++rank) {
    rows.emplace_back(flat.begin() + rank * count,
                      flat.begin() + (rank + 1) * count);
  }
  return rows;
}

}  // namespace trireme
