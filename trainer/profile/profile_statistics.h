// Repeated timings, and figures of all ranks in one place: what the profilers
// share.

#ifndef TRIREME_TRAINER_PROFILE_PROFILE_STATISTICS_H_
#define TRIREME_TRAINER_PROFILE_PROFILE_STATISTICS_H_

#include <functional>
#include <vector>

#include "runtime/comm/communicator.h"
#include "runtime/core/median.h"
#include "runtime/device/stream.h"

namespace trireme {

// Of at least one value: (largest - smallest) / median.
double Spread(const std::vector<double>& values);

// That `stream` needs, by the clock of its device, for what `run` gives it and
// has it wait for. The stream has nothing else to do: a GPU that takes what it
// is given faster than the host gives it is timed with its waits for the host.
double SecondsOf(Stream& stream, const std::function<void()>& run);

// Seconds of each of `repetitions` runs, after one that does not count.
std::vector<double> TimesOf(int repetitions, Stream& stream,
                            const std::function<void()>& run);

// How often to repeat what takes once_s, so that all takes about within_s: at
// most `most` times, and three times (or `most`) however long it takes.
int RepetitionsWithin(double within_s, double once_s, int most);

// rows[rank]: every rank's values, as many from each. Collective.
std::vector<std::vector<double>> GatherRows(Communicator& world,
                                            const std::vector<double>& own);

}  // namespace trireme

#endif  // TRIREME_TRAINER_PROFILE_PROFILE_STATISTICS_H_
