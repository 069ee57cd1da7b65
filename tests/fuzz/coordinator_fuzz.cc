// What ranks tell the process that launched them, and what people are shown of
// it; the first byte says which message the rest is.

#include "tests/fuzz/input.h"
#include "trainer/coordinator/coordinator.pb.h"
#include "trainer/coordinator/job_watch.h"
#include "trainer/coordinator/metrics_text.h"
#include "trainer/coordinator/status_text.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace trireme;
  std::string_view input = TextOf(data, size);
  const int choice = TakeChoice(input, 2);
  JobStatus status;
  if (choice == 0) {
    RankReport report;
    if (!report.ParseFromArray(input.data(), static_cast<int>(input.size()))) {
      return 0;
    }
    const JobWatch::Clock::time_point now;
    JobWatch watch("run", now);
    watch.Begin(report.start());
    (void)watch.Report(report, now);
    status = watch.Status(now);
  } else if (!status.ParseFromArray(input.data(),
                                    static_cast<int>(input.size()))) {
    return 0;
  }
  (void)StatusText(status, /*peak_flops=*/1e12);
  (void)MetricsText(status);
  return 0;
}
