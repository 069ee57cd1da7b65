#include "moe/node_rows.h"

#include <algorithm>
#include <numeric>
#include <utility>

#include "runtime/device/host.h"
#include "runtime/ops/embedding.h"

namespace trireme {
namespace {

int64_t SumOf(const std::vector<int64_t>& counts) {
  return std::accumulate(counts.begin(), counts.end(), int64_t{0});
}

Tensor Indices(Device& device, std::vector<int32_t> values, int64_t room,
               const std::string& name) {
  values.resize(room, 0);
  return Upload<int32_t>(device, {room}, values, MemoryCategory::kActivations,
                         name);
}

Tensor Room(const Tensor& rows, int64_t count, const std::string& name) {
  return Tensor::Empty(rows.device(), {count, rows.dim(1)}, rows.dtype(),
                       MemoryCategory::kCommunication, name);
}

// Where this rank lies, of n nodes with m ranks each.
struct Position {
  Position(const Communicators& communicators, int64_t ranks)
      : rank(communicators.ExpertGroup().rank()),
        m(communicators.ExpertNode().size()),
        n(ranks / m),
        node(rank / m),
        place(rank % m) {}

  const int64_t rank, m, n, node, place;
};

// A node's rows of a rank, token by token: each that occurs once, and of each
// row which of them it is.
struct Distinct {
  std::vector<int32_t> tokens, of_rows;
};

Distinct DistinctOf(const std::vector<int32_t>& tokens, int64_t begin,
                    int64_t end, int64_t num_tokens) {
  Distinct distinct;
  std::vector<int32_t> found(num_tokens, -1);
  for (int64_t i = begin; i < end; ++i) {
    int32_t& index = found[tokens[i]];
    if (index < 0) {
      index = static_cast<int32_t>(distinct.tokens.size());
      distinct.tokens.push_back(tokens[i]);
    }
    distinct.of_rows.push_back(index);
  }
  return distinct;
}

// What each rank of this place has for each node: [nodes, nodes]. A dry device
// is told of no other's: all have what this one has.
std::vector<int64_t> GatherByPlace(Device& device, Communicator& across,
                                   const std::vector<int64_t>& own,
                                   const std::string& name) {
  const auto n = static_cast<int64_t>(own.size());
  const Tensor all = Tensor::Empty(device, {n * n}, DType::kInt32,
                                   MemoryCategory::kCommunication, name);
  across
      .AllGather(Upload<int32_t>(device, {n},
                                 std::vector<int32_t>(own.begin(), own.end()),
                                 MemoryCategory::kCommunication, name),
                 all, name + " tokens of nodes")
      .Wait();
  const std::vector<int32_t> values = Download<int32_t>(all);
  if (!values.empty()) return {values.begin(), values.end()};
  std::vector<int64_t> alike;
  for (int64_t i = 0; i < n; ++i) {
    alike.insert(alike.end(), own.begin(), own.end());
  }
  return alike;
}

}  // namespace

NodeRows::NodeRows(const Communicators& communicators, RowCounts counts,
                   const Tensor& tokens, int64_t num_tokens, int64_t dry_tokens,
                   int64_t capacity, const std::string& name)
    : communicators_(communicators),
      counts_(std::move(counts)),
      capacity_(capacity),
      name_(name) {
  Device& device = tokens.device();
  const Position at(communicators, counts_.ranks());
  const std::vector<int32_t> of_rows = Download<int32_t>(tokens);
  std::vector<int32_t> going, indices;
  // Rows of this rank to each node, and of this place's ranks to this node.
  std::vector<int64_t> to_nodes, from_nodes;
  int64_t begin = 0;
  for (int64_t other = 0; other < at.n; ++other) {
    int64_t to = 0, from = 0;
    for (int64_t i = 0; i < at.m; ++i) {
      to += counts_(at.rank, other * at.m + i);
      from += counts_(other * at.m + at.place, at.node * at.m + i);
    }
    to_nodes.push_back(to);
    from_nodes.push_back(from);
    if (of_rows.empty()) {
      sent_.push_back(std::min(dry_tokens, to));
    } else {
      const Distinct distinct =
          DistinctOf(of_rows, begin, begin + to, num_tokens);
      going.insert(going.end(), distinct.tokens.begin(), distinct.tokens.end());
      indices.insert(indices.end(), distinct.of_rows.begin(),
                     distinct.of_rows.end());
      sent_.push_back(static_cast<int64_t>(distinct.tokens.size()));
    }
    if (other != at.node) saved_ += to - sent_.back();
    begin += to;
  }
  Communicator& across = communicators.ExpertsAcrossNodes();
  const std::vector<int64_t> table = GatherByPlace(device, across, sent_, name);
  for (int64_t from = 0; from < at.n; ++from) {
    received_.push_back(table[from * at.n + at.node]);
  }

  // Which of a node's tokens each row is of travels ahead.
  const int64_t rows = SumOf(to_nodes), passing = SumOf(from_nodes);
  const Tensor arrived = Tensor::Empty(device, {passing, 1}, DType::kInt32,
                                       MemoryCategory::kCommunication, name);
  indices.resize(rows, 0);
  across
      .AllToAllV(Upload<int32_t>(device, {rows, 1}, indices,
                                 MemoryCategory::kCommunication, name),
                 to_nodes, arrived, from_nodes, name + " places of tokens")
      .Wait();
  std::vector<int32_t> places = Download<int32_t>(arrived);
  places.resize(passing, 0);
  // They come by node and are passed on by rank.
  std::vector<std::vector<int32_t>> of_ranks(at.m);
  int64_t first = 0, next = 0;
  for (int64_t from = 0; from < at.n; ++from) {
    for (int64_t to = 0; to < at.m; ++to) {
      const int64_t count =
          counts_(from * at.m + at.place, at.node * at.m + to);
      for (int64_t i = 0; i < count; ++i) {
        of_ranks[to].push_back(static_cast<int32_t>(first + places[next++]));
      }
    }
    first += received_[from];
  }
  std::vector<int32_t> passed_on;
  for (const std::vector<int32_t>& of_rank : of_ranks) {
    passed_on.insert(passed_on.end(), of_rank.begin(), of_rank.end());
  }
  const bool dry = device.dry();
  tokens_ = Indices(device, std::move(going),
                    dry ? at.n * num_tokens : SumOf(sent_), name);
  passed_on_ = Indices(device, std::move(passed_on),
                       dry ? std::max({passing, rows, capacity,
                                       std::min(at.n * rows, at.m * capacity)})
                           : passing,
                       name);
}

Tensor NodeRows::Spread(const Tensor& x) const {
  const Position at(communicators_, counts_.ranks());
  const bool dry = x.device().dry();
  Communicator& across = communicators_.ExpertsAcrossNodes();
  const Tensor going = GatherRows(x, tokens_);
  const Tensor arrived =
      Room(x, dry ? tokens_.dim(0) : SumOf(received_), name_);
  across.CountSaved(saved_ * x.dim(1) * DTypeSize(x.dtype()));
  across
      .AllToAllV(going.Slice(0, SumOf(sent_)), sent_,
                 arrived.Slice(0, SumOf(received_)), received_,
                 name_ + " tokens across nodes")
      .Wait();
  std::vector<int64_t> sent(at.m, 0), received(at.m, 0);
  std::vector<int64_t> by_sender;  // [ranks of the node][nodes]
  for (int64_t i = 0; i < at.m; ++i) {
    for (int64_t from = 0; from < at.n; ++from) {
      sent[i] += counts_(from * at.m + at.place, at.node * at.m + i);
      by_sender.push_back(counts_(from * at.m + i, at.rank));
      received[i] += by_sender.back();
    }
  }
  const Tensor passed = GatherRows(arrived, passed_on_);
  const Tensor mine = Room(x, std::max(SumOf(received), capacity_), name_);
  communicators_.ExpertNode()
      .AllToAllV(passed.Slice(0, SumOf(sent)), sent,
                 mine.Slice(0, SumOf(received)), received,
                 name_ + " tokens in the node")
      .Wait();
  return SwapRuns(mine, by_sender, at.m, at.n, capacity_, name_);
}

}  // namespace trireme
