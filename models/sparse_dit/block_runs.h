// How a sample's tokens lie on the ranks of cp: sorted by their blocks, and cut
// into one run of whole small blocks (4³ cells) a rank, as even as blocks
// allow. So a rank compresses its own blocks alone (block_compression.h), and a
// sample of few tokens is work for all ranks.

#ifndef TRIREME_MODELS_SPARSE_DIT_BLOCK_RUNS_H_
#define TRIREME_MODELS_SPARSE_DIT_BLOCK_RUNS_H_

#include <cstdint>
#include <span>
#include <vector>

namespace trireme {

// Of `batch` samples, each of whose runs has `slots` places for tokens.
struct BlockRunSizes {
  int64_t batch = 0;
  int64_t tokens = 0;         // of a sample at most
  int64_t padded_tokens = 0;  // as a sample's own order is laid out
  int64_t resolution = 0;
  int64_t runs = 1;
  int64_t slots = 0;  // at least MostTokensOfRun
};

// Tables for whoever brings tokens to their slots and back, and compressed
// blocks of all runs together.
struct BlockRuns {
  std::vector<int32_t> voxels;  // [batch, runs·slots, 3]; −1: padding
  std::vector<int32_t> counts;  // [batch, runs]: tokens, a run's first slots
  // [batch·runs·slots]: rows of [batch·tokens]; padding has a sample's first.
  std::vector<int32_t> token_of_slot;
  // [batch·padded_tokens]: rows of [batch·runs·slots]; likewise.
  std::vector<int32_t> slot_of_token;
  // [batch, runs]: small blocks, which are numbered run by run.
  std::vector<int32_t> blocks;
};

// The most tokens of one of so many runs of at most `tokens`.
int64_t MostTokensOfRun(int64_t tokens, int64_t runs);

// Of voxels [batch, tokens, 3] (x, y, z), of which sample i has the first
// counts[i]. Several tokens at one place are CHECKed as far as a run overflows.
// Without voxels, as of a dry device, all is padding.
BlockRuns CutIntoRuns(std::span<const int32_t> voxels,
                      std::span<const int32_t> counts,
                      const BlockRunSizes& sizes);

// Of a sample's small blocks, at most `most`, their rows where each run has
// `most_of_run`: [batch·most] of [batch·runs·most_of_run]. Where there are no
// more blocks, a sample's first.
std::vector<int32_t> RowsOfBlocks(const BlockRuns& runs,
                                  const BlockRunSizes& sizes,
                                  int64_t most_of_run, int64_t most);

}  // namespace trireme

#endif  // TRIREME_MODELS_SPARSE_DIT_BLOCK_RUNS_H_
