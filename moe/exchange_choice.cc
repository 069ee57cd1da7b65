#include "moe/exchange_choice.h"

#include <algorithm>

namespace trireme {
namespace {

using Moves = ExpertExchange::Moves;

// Of the rank that has most to send or to receive.
int64_t BusiestRows(const RowCounts& counts) {
  int64_t busiest = 0;
  for (int64_t rank = 0; rank < counts.ranks(); ++rank) {
    const int64_t stays = counts(rank, rank);
    busiest = std::max({busiest, counts.SentBy(rank) - stays,
                        counts.ReceivedBy(rank) - stays});
  }
  return busiest;
}

bool WeightsAreLess(const RowCounts& counts, const DispatchSizes& sizes) {
  const int64_t others = sizes.experts - sizes.experts / counts.ranks();
  return others * sizes.expert_bytes < BusiestRows(counts) * sizes.row_bytes;
}

// Rows of the rank that receives most, over those of even routing.
double LoadOf(const RowCounts& counts) {
  int64_t most = 0, all = 0;
  for (int64_t rank = 0; rank < counts.ranks(); ++rank) {
    most = std::max(most, counts.ReceivedBy(rank));
    all += counts.ReceivedBy(rank);
  }
  return all == 0 ? 0 : static_cast<double>(most * counts.ranks()) / all;
}

// The expert with most rows from other ranks.
int64_t MostWanted(const std::vector<int64_t>& table, int64_t ranks) {
  const int64_t experts = static_cast<int64_t>(table.size()) / ranks;
  const int64_t local = experts / ranks;
  int64_t wanted = 0, most = -1;
  for (int64_t expert = 0; expert < experts; ++expert) {
    int64_t rows = 0;
    for (int64_t from = 0; from < ranks; ++from) {
      if (from != expert / local) rows += table[from * experts + expert];
    }
    if (rows > most) {
      wanted = expert;
      most = rows;
    }
  }
  return wanted;
}

}  // namespace

ExpertExchange::Choice ChooseExchange(const ExpertExchange& exchange,
                                      const RowCounts& counts,
                                      const DispatchSizes& sizes, bool dry) {
  ExpertExchange::Choice choice = {
      .moves = exchange.moves,
      .by_nodes =
          exchange.node_ranks > 1 && exchange.node_ranks < counts.ranks(),
      .chunks = exchange.chunks};
  if (exchange.moves != Moves::kAdaptive) return choice;
  choice.moves =
      !dry && WeightsAreLess(counts, sizes) ? Moves::kWeights : Moves::kRows;
  for (const ExpertExchange::Choice& tuned : exchange.choices) {
    if (dry) choice.chunks = std::max(choice.chunks, tuned.chunks);
  }
  if (dry || exchange.choices.empty()) return choice;
  const double load = LoadOf(counts);
  for (const ExpertExchange::Choice& tuned : exchange.choices) {
    if (load <= tuned.max_load) return tuned;
  }
  return exchange.choices.back();
}

std::vector<int64_t> ChooseShadowed(const std::vector<int64_t>& table,
                                    int64_t ranks, int64_t most,
                                    const DispatchSizes& sizes) {
  std::vector<int64_t> chosen;
  std::vector<int64_t> moving = table;
  const auto bytes = [&](const std::vector<int64_t>& rows, size_t shadowed) {
    return BusiestRows(CountsBetween(ranks, rows)) * sizes.row_bytes +
           static_cast<int64_t>(shadowed) * sizes.shadowed_bytes;
  };
  while (static_cast<int64_t>(chosen.size()) < most) {
    const int64_t expert = MostWanted(moving, ranks);
    std::vector<int64_t> fewer = Without({expert}, moving, ranks);
    if (bytes(fewer, chosen.size() + 1) >= bytes(moving, chosen.size())) break;
    moving = std::move(fewer);
    chosen.push_back(expert);
  }
  std::sort(chosen.begin(), chosen.end());
  return chosen;
}

std::vector<int64_t> Without(const std::vector<int64_t>& experts,
                             std::vector<int64_t> table, int64_t ranks) {
  const int64_t all = static_cast<int64_t>(table.size()) / ranks;
  for (const int64_t expert : experts) {
    for (int64_t from = 0; from < ranks; ++from) {
      table[from * all + expert] = 0;
    }
  }
  return table;
}

}  // namespace trireme
