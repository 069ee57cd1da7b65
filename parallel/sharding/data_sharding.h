// How data-parallel ranks share what each of them would otherwise hold whole
// (Rajbhandari et al., "ZeRO", section 5; hybrid: Zhao et al., "PyTorch FSDP",
// section 3.2.2).

#ifndef TRIREME_PARALLEL_SHARDING_DATA_SHARDING_H_
#define TRIREME_PARALLEL_SHARDING_DATA_SHARDING_H_

namespace trireme {

struct DataSharding {
  // Each level shards what those before it do, and more.
  enum class Level {
    kReplicated,
    kOptimizer,   // master weights, moments and averages (ZeRO-1)
    kGradients,   // ZeRO-2
    kParameters,  // ZeRO-3
  };
  Level level = Level::kReplicated;
  // Ranks over which shards are spread: a run of the dp coordinate. The groups
  // hold copies of each other.
  int group = 1;
  // Gradients travel in bf16 and are summed in fp32.
  bool bf16_messages = false;

  // How many shards there are of what `shared` and the levels below it share.
  int ShardsAt(Level shared) const { return level >= shared ? group : 1; }
};

}  // namespace trireme

#endif  // TRIREME_PARALLEL_SHARDING_DATA_SHARDING_H_
