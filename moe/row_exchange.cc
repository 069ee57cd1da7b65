#include "moe/row_exchange.h"

#include <algorithm>
#include <numeric>
#include <utility>

#include "runtime/core/log.h"
#include "runtime/device/host.h"
#include "runtime/ops/embedding.h"

namespace trireme {
namespace {

int64_t SumOf(const std::vector<int64_t>& counts) {
  return std::accumulate(counts.begin(), counts.end(), int64_t{0});
}

Tensor Room(const Tensor& rows, int64_t count, const std::string& name) {
  return Tensor::Empty(rows.device(), {count, rows.dim(1)}, rows.dtype(),
                       MemoryCategory::kCommunication, name);
}

// What one rank of a group sends and receives.
struct Share {
  std::vector<int64_t> sent, received;
};

Event AllToAll(Communicator& group, const Share& share, const Tensor& rows,
               const Tensor& received, const std::string& name) {
  return group.AllToAllV(rows.Slice(0, SumOf(share.sent)), share.sent,
                         received.Slice(0, SumOf(share.received)),
                         share.received, name);
}

Event InOneStep(const Communicators& communicators, const RowCounts& counts,
                const Tensor& rows, const Tensor& received,
                const std::string& name) {
  const int64_t rank = communicators.ExpertGroup().rank();
  Share share;
  for (int64_t other = 0; other < counts.ranks(); ++other) {
    share.sent.push_back(counts(rank, other));
    share.received.push_back(counts(other, rank));
  }
  return AllToAll(communicators.ExpertGroup(), share, rows, received, name);
}

void InTwoSteps(const Communicators& communicators, const RowCounts& counts,
                const Tensor& rows, const Tensor& received,
                const std::string& name) {
  const int64_t rank = communicators.ExpertGroup().rank();
  const int64_t m = communicators.ExpertNode().size();
  const int64_t n = counts.ranks() / m;
  const int64_t node = rank / m;
  const int64_t place = rank % m;
  // On a dry device as many as may pass through: what the ranks of this place
  // send, or those of this node may receive.
  const int64_t room =
      rows.device().dry()
          ? std::max({rows.dim(0), received.dim(0),
                      std::min(n * rows.dim(0), m * received.dim(0))})
          : 0;

  std::vector<int64_t> by_receiver;
  Share in_node{.sent = std::vector<int64_t>(m, 0),
                .received = std::vector<int64_t>(m, 0)};
  for (int64_t to = 0; to < n * m; ++to) {
    by_receiver.push_back(counts(rank, to));
    in_node.sent[to % m] += by_receiver.back();
  }
  std::vector<int64_t> passing;  // [ranks of the node][nodes]
  Share across{.sent = std::vector<int64_t>(n, 0),
               .received = std::vector<int64_t>(n, 0)};
  for (int64_t from = 0; from < m; ++from) {
    for (int64_t to = 0; to < n; ++to) {
      passing.push_back(counts(node * m + from, to * m + place));
      in_node.received[from] += passing.back();
      across.sent[to] += passing.back();
      across.received[to] += counts(to * m + from, rank);
    }
  }
  const Tensor passed =
      Room(rows, std::max(room, SumOf(in_node.received)), name);
  AllToAll(communicators.ExpertNode(), in_node,
           SwapRuns(rows, by_receiver, n, m, room, name), passed,
           name + " in the node")
      .Wait();
  AllToAll(communicators.ExpertsAcrossNodes(), across,
           SwapRuns(passed, passing, m, n, room, name), received,
           name + " across nodes")
      .Wait();
}

}  // namespace

Tensor SwapRuns(const Tensor& rows, const std::vector<int64_t>& lengths,
                int64_t outer, int64_t inner, int64_t room,
                const std::string& name) {
  std::vector<int64_t> begins(lengths.size(), 0);
  std::partial_sum(lengths.begin(), lengths.end() - 1, begins.begin() + 1);
  std::vector<int32_t> order;
  for (int64_t i = 0; i < inner; ++i) {
    for (int64_t o = 0; o < outer; ++o) {
      const int64_t run = o * inner + i;
      for (int64_t row = 0; row < lengths[run]; ++row) {
        order.push_back(static_cast<int32_t>(begins[run] + row));
      }
    }
  }
  order.resize(std::max<int64_t>(room, order.size()), 0);
  return GatherRows(
      rows, Upload<int32_t>(rows.device(), {static_cast<int64_t>(order.size())},
                            order, MemoryCategory::kCommunication, name));
}

RowCounts::RowCounts(int64_t ranks, std::vector<int64_t> counts)
    : ranks_(ranks), counts_(std::move(counts)) {
  CHECK_EQ(static_cast<int64_t>(counts_.size()), ranks * ranks);
}

int64_t RowCounts::SentBy(int64_t rank) const {
  int64_t sum = 0;
  for (int64_t to = 0; to < ranks_; ++to) sum += (*this)(rank, to);
  return sum;
}

int64_t RowCounts::ReceivedBy(int64_t rank) const {
  int64_t sum = 0;
  for (int64_t from = 0; from < ranks_; ++from) sum += (*this)(from, rank);
  return sum;
}

RowCounts RowCounts::Transposed() const {
  std::vector<int64_t> back;
  for (int64_t from = 0; from < ranks_; ++from) {
    for (int64_t to = 0; to < ranks_; ++to) back.push_back((*this)(to, from));
  }
  return RowCounts(ranks_, std::move(back));
}

RowCounts CountsBetween(int64_t ranks, const std::vector<int64_t>& table) {
  const int64_t local = static_cast<int64_t>(table.size()) / (ranks * ranks);
  std::vector<int64_t> counts;
  for (auto at = table.begin(); at != table.end(); at += local) {
    counts.push_back(std::accumulate(at, at + local, int64_t{0}));
  }
  return RowCounts(ranks, std::move(counts));
}

Tensor ExchangeRows(const Communicators& communicators, const RowCounts& counts,
                    bool by_nodes, const Tensor& rows, int64_t capacity,
                    const std::string& name) {
  Tensor received = Room(rows, capacity, name);
  if (by_nodes) {
    InTwoSteps(communicators, counts, rows, received, name);
  } else {
    InOneStep(communicators, counts, rows, received, name).Wait();
  }
  return received;
}

Tensor ExchangedRows::Wait() {
  arrived_.Wait(received_.device().stream());
  sent_ = Tensor();
  return std::exchange(received_, Tensor());
}

ExchangedRows StartExchange(const Communicators& communicators,
                            const RowCounts& counts, bool by_nodes,
                            const Tensor& rows, const Tensor& received,
                            const std::string& name) {
  if (!by_nodes) {
    return {rows, received,
            InOneStep(communicators, counts, rows, received, name)};
  }
  Device& device = rows.device();
  device.stream().Record().Wait(device.stream(StreamKind::kCommunication));
  const StreamScope scope(device, StreamKind::kCommunication);
  InTwoSteps(communicators, counts, rows, received, name);
  return {rows, received, device.stream().Record()};
}

}  // namespace trireme
