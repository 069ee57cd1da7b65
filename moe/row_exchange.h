// Rows between the ranks of an expert group, in the order of their senders: by
// one all-to-all, or by two where ranks lie on nodes (2DH; Hwang et al.,
// "Tutel: adaptive mixture-of-experts at scale", section 3.4). Of n nodes with
// m ranks each, rows first go to the rank of the own node that has the
// receiver's place there, then to its node: each rank sends m + n longer
// messages in place of m·n. Both ways bring the same rows to the same places.

#ifndef TRIREME_MOE_ROW_EXCHANGE_H_
#define TRIREME_MOE_ROW_EXCHANGE_H_

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "parallel/grid/communicators.h"
#include "runtime/device/event.h"
#include "runtime/device/tensor.h"

namespace trireme {

// Rows from each rank of a group to each other: counts[from][to].
class RowCounts {
 public:
  RowCounts(int64_t ranks, std::vector<int64_t> counts);

  int64_t ranks() const { return ranks_; }
  int64_t operator()(int64_t from, int64_t to) const {
    return counts_[from * ranks_ + to];
  }
  int64_t SentBy(int64_t rank) const;
  int64_t ReceivedBy(int64_t rank) const;
  // Of the way back.
  RowCounts Transposed() const;

 private:
  int64_t ranks_;
  std::vector<int64_t> counts_;
};

// Of [ranks, experts], each rank's routes to each expert, those between ranks.
RowCounts CountsBetween(int64_t ranks, const std::vector<int64_t>& table);

// Rows that lie in runs of lengths[outer][inner], outer first, with inner
// first. `room`: rows of the result, at least.
Tensor SwapRuns(const Tensor& rows, const std::vector<int64_t>& lengths,
                int64_t outer, int64_t inner, int64_t room,
                const std::string& name);

// rows[.., h] by receiver → [capacity, h] by sender, of which as many are
// filled as arrive. On a dry device, which takes memory for the most that there
// may be, `rows` may be more than are sent. `by_nodes`: in two steps, where
// ranks lie on nodes. A collective over the expert group.
Tensor ExchangeRows(const Communicators& communicators, const RowCounts& counts,
                    bool by_nodes, const Tensor& rows, int64_t capacity,
                    const std::string& name);

// Rows on their way. Their tensors are kept until somebody waits.
class ExchangedRows {
 public:
  ExchangedRows(Tensor sent, Tensor received, Event arrived)
      : sent_(std::move(sent)),
        received_(std::move(received)),
        arrived_(std::move(arrived)) {}

  // Moves the received rows out: what the current stream is given from now on
  // comes after their arrival. Once.
  Tensor Wait();

 private:
  Tensor sent_, received_;
  Event arrived_;
};

// As ExchangeRows, into `received` [capacity, h], without waiting: the current
// stream goes on meanwhile, where the device has others beside it. By nodes the
// host's own stream, which has none, waits nevertheless.
ExchangedRows StartExchange(const Communicators& communicators,
                            const RowCounts& counts, bool by_nodes,
                            const Tensor& rows, const Tensor& received,
                            const std::string& name);

}  // namespace trireme

#endif  // TRIREME_MOE_ROW_EXCHANGE_H_
