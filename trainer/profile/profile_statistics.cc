#include "trainer/profile/profile_statistics.h"

#include <algorithm>
#include <memory>

#include "runtime/comm/control.h"

namespace trireme {

double Spread(const std::vector<double>& values) {
  const auto [low, high] = std::minmax_element(values.begin(), values.end());
  return (*high - *low) / Median(values);
}

double SecondsOf(Stream& stream, const std::function<void()>& run) {
  const std::shared_ptr<StreamMark> begin = stream.Mark();
  run();
  const std::shared_ptr<StreamMark> end = stream.Mark();
  end->Wait();
  return end->SecondsSince(*begin);
}

std::vector<double> TimesOf(int repetitions, Stream& stream,
                            const std::function<void()>& run) {
  SecondsOf(stream, run);
  std::vector<double> times;
  for (int i = 0; i < repetitions; ++i) {
    times.push_back(SecondsOf(stream, run));
  }
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
