// What `trireme report` reads of a run; the first byte says which file.

#include "runtime/core/log.h"
#include "tests/fuzz/input.h"
#include "trainer/report/report.h"
#include "trainer/run/run_folder.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace trireme;
  static const ScratchFolder folder;
  constexpr std::string_view kStep = "{\"step\":1,\"loss\":1.5}\n";
  std::string_view input = TextOf(data, size);
  const bool metrics = TakeChoice(input, 2) == 0;
  folder.Write("metrics.jsonl", metrics ? input : kStep);
  folder.Write("trace/rank_0.json", metrics ? "" : input);
  const auto report = ReportOfRun(RunFolder(folder.path()));
  CHECK(report.ok() || metrics) << report.status();
  return 0;
}
