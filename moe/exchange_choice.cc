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

// Slices of all experts that a rank does not own.
int64_t SlicesOfOthers(int64_t ranks, const DispatchSizes& sizes) {
  const int64_t all = sizes.experts * sizes.slices;
  return all - all / ranks;
}

int64_t BytesOfRows(const std::vector<int64_t>& table, int64_t ranks,
                    int64_t copies, const DispatchSizes& sizes) {
  const ExpertSlices slices = {.slices = sizes.slices, .copies = copies};
  return BusiestRows(
             CountsBetween(ranks, RoutesToSlices(table, ranks, slices))) *
             sizes.row_bytes +
         (slices.gathered() - 1) * sizes.expert_bytes;
}

// Whatever is fewest bytes for the rank that has most to send or receive; of
// what is alike, rows to all slices.
void ChooseByBytes(const std::vector<int64_t>& table, int64_t ranks,
                   const DispatchSizes& sizes,
                   const std::vector<int>& gathered_slices,
                   ExpertExchange::Choice& choice) {
  choice.moves = Moves::kRows;
  choice.row_copies = static_cast<int>(sizes.slices);
  int64_t fewest = BytesOfRows(table, ranks, sizes.slices, sizes);
  for (const int gathered : gathered_slices) {
    const int64_t copies = sizes.slices / gathered;
    const int64_t bytes = BytesOfRows(table, ranks, copies, sizes);
    if (bytes >= fewest) continue;
    fewest = bytes;
    choice.row_copies = static_cast<int>(copies);
  }
  if (SlicesOfOthers(ranks, sizes) * sizes.expert_bytes < fewest) {
    choice.moves = Moves::kWeights;
  }
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
                                      const std::vector<int64_t>& table,
                                      int64_t ranks, const DispatchSizes& sizes,
                                      bool dry) {
  const int all = static_cast<int>(sizes.slices);
  ExpertExchange::Choice choice = {
      .moves = exchange.moves,
      .by_nodes = exchange.node_ranks > 1 && exchange.node_ranks < ranks,
      .chunks = exchange.chunks,
      .row_copies = exchange.row_copies == 0 ? all : exchange.row_copies};
  if (exchange.moves != Moves::kAdaptive) return choice;
  if (dry) {
    // Rows to all slices take as much memory as any, with the weights that may
    // come beside them.
    choice.moves = Moves::kRows;
    choice.row_copies = all;
    for (const ExpertExchange::Choice& tuned : exchange.choices) {
      choice.chunks = std::max(choice.chunks, tuned.chunks);
    }
    return choice;
  }
  if (exchange.choices.empty()) {
    ChooseByBytes(table, ranks, sizes, exchange.gathered_slices(), choice);
    return choice;
  }
  const double load = LoadOf(CountsBetween(
      ranks, RoutesToSlices(table, ranks,
                            {.slices = sizes.slices, .copies = sizes.slices})));
  const auto tuned = std::find_if(
      exchange.choices.begin(), exchange.choices.end() - 1,
      [&](const ExpertExchange::Choice& c) { return load <= c.max_load; });
  choice = *tuned;
  if (choice.row_copies == 0) choice.row_copies = all;
  return choice;
}

std::vector<int64_t> ChooseShadowed(const std::vector<int64_t>& table,
                                    int64_t ranks, int64_t most,
                                    const DispatchSizes& sizes) {
  // Experts that several ranks share have no rows of one rank's to count.
  if (most == 0) return {};
  std::vector<int64_t> wanted, chosen;
  std::vector<int64_t> moving = table;
  const auto bytes = [&] {
    return BusiestRows(CountsBetween(ranks, moving)) * sizes.row_bytes +
           static_cast<int64_t>(wanted.size()) * sizes.shadowed_bytes;
  };
  int64_t fewest = bytes();
  while (static_cast<int64_t>(wanted.size()) < most) {
    const int64_t expert = MostWanted(moving, ranks);
    moving = Without({expert}, std::move(moving), ranks);
    wanted.push_back(expert);
    // One alone helps little where another rank has as much to receive.
    const int64_t now = bytes();
    if (now >= fewest) continue;
    fewest = now;
    chosen = wanted;
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
