// What lies beside a checkpoint's tensors, and a run's metrics; the first byte
// says which.

#include "parallel/sharding/stored_tensors.h"
#include "runtime/checkpoint/checkpoint_folder.h"
#include "runtime/telemetry/metrics_log.h"
#include "tests/fuzz/input.h"
#include "trainer/checkpoints/trained_part.h"
#include "trainer/coordinator/launch_record.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace trireme;
  static const ScratchFolder folder;
  std::string_view input = TextOf(data, size);
  switch (TakeChoice(input, 4)) {
    case 0:
      folder.Write("checkpoints/step_00000001/manifest.json", input);
      folder.Write("checkpoints/step_00000001/model.safetensors", "");
      (void)ReadManifest(folder.path() + "/checkpoints/step_00000001");
      (void)FindWholeCheckpoint(folder.path() + "/checkpoints");
      (void)TrainedPartOf(folder.path() + "/checkpoints/step_00000001");
      break;
    case 1:
      folder.Write("stored/model.index.json", input);
      (void)StoredTensors::Open(folder.path() + "/stored/model.safetensors");
      break;
    case 2: {
      const std::string path = folder.Write("metrics.jsonl", input);
      (void)ReadMetrics(path);
      (void)MetricsLog::Open(path, /*last_step=*/3);
      break;
    }
    default:
      folder.Write("coordinator.json", input);
      (void)ReadLaunchRecord(folder.path());
  }
  return 0;
}
