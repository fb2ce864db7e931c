//! The transportation problem, exactly: successive shortest paths with potentials, on dense tables.

/// Flows of least cost from rows with a supply to columns with a demand of the same sum. Costs are at least 0.
///
/// Row by row: what a row has goes along the shortest path to a column that lacks something; a path goes back over what was
/// sent before. Potentials keep all costs at 0 or more, and at 0 where something is sent, so the nearest column is next for
/// good, and the rows that send to it are as near as it is. There are hardly more flows than rows and columns together,
/// so a path is found in about as many steps as the table has cells.
pub(super) fn least_cost(supply: Vec<u64>, demand: Vec<u64>, costs: &[Vec<i64>]) -> Vec<Vec<u64>> {
    let mut table = Table::new(supply.len(), demand, costs);
    for (row, mut left) in supply.into_iter().enumerate() {
        while left > 0 {
            let Some(target) = table.nearest(row) else { break };
            left -= table.send(target, left);
        }
    }
    table.flow
}

struct Table<'a> {
    costs: &'a [Vec<i64>],
    flow: Vec<Vec<u64>>,
    /// What each column lacks.
    lacks: Vec<u64>,
    /// The rows that send to each column.
    senders: Vec<Vec<usize>>,
    row_potential: Vec<i64>,
    column_potential: Vec<i64>,
    search: Search,
}

/// The search for a path from one row.
#[derive(Default)]
struct Search {
    /// Each column's distance, and the row before it on the way.
    distance: Vec<i64>,
    through: Vec<usize>,
    /// Columns whose distance is known for good, in the order of their distance, and the others.
    done: Vec<usize>,
    open: Vec<usize>,
    /// Rows that were reached, with their distance; and the column before each row on the way.
    rows: Vec<(usize, i64)>,
    back_from: Vec<Option<usize>>,
}

impl<'a> Table<'a> {
    fn new(rows: usize, demand: Vec<u64>, costs: &'a [Vec<i64>]) -> Self {
        let columns = demand.len();
        Self {
            costs,
            flow: vec![vec![0; columns]; rows],
            lacks: demand,
            senders: vec![Vec::new(); columns],
            row_potential: vec![0; rows],
            column_potential: vec![0; columns],
            search: Search::default(),
        }
    }

    /// The nearest column that lacks something, with the way to it left in `search`.
    fn nearest(&mut self, from: usize) -> Option<usize> {
        let (rows, columns) = (self.flow.len(), self.lacks.len());
        self.search = Search {
            distance: vec![i64::MAX; columns],
            through: vec![from; columns],
            done: Vec::with_capacity(columns),
            open: (0..columns).collect(),
            rows: Vec::with_capacity(rows),
            back_from: vec![None; rows],
        };
        self.reach(from, 0);
        loop {
            let search = &mut self.search;
            let next = |place: &usize| (search.distance[search.open[*place]], search.open[*place]);
            let place = (0..search.open.len()).min_by_key(next)?;
            let column = search.open.swap_remove(place);
            let distance = search.distance[column];
            if self.lacks[column] > 0 {
                self.lower_potentials(distance);
                return Some(column);
            }
            search.done.push(column);
            for index in 0..self.senders[column].len() {
                let row = self.senders[column][index];
                if row != from && self.search.back_from[row].is_none() {
                    self.search.back_from[row] = Some(column);
                    self.reach(row, distance);
                }
            }
        }
    }

    /// Takes a row into the search: the columns may be nearer through it.
    fn reach(&mut self, row: usize, distance: i64) {
        let search = &mut self.search;
        search.rows.push((row, distance));
        let (costs, offset) = (&self.costs[row], distance + self.row_potential[row]);
        for column in &search.open {
            let through = offset + costs[*column] - self.column_potential[*column];
            if through < search.distance[*column] {
                search.distance[*column] = through;
                search.through[*column] = row;
            }
        }
    }

    /// Brings the costs along shortest paths of at most this length to 0.
    fn lower_potentials(&mut self, length: i64) {
        for (row, distance) in &self.search.rows {
            self.row_potential[*row] += distance - length;
        }
        for column in &self.search.done {
            self.column_potential[*column] += self.search.distance[*column] - length;
        }
    }

    /// Sends what goes along the way to a column, at most what is left; returns how much that was.
    fn send(&mut self, target: usize, left: u64) -> u64 {
        let mut amount = left.min(self.lacks[target]);
        let mut row = self.search.through[target];
        while let Some(column) = self.search.back_from[row] {
            amount = amount.min(self.flow[row][column]);
            row = self.search.through[column];
        }
        let mut column = target;
        loop {
            let row = self.search.through[column];
            if self.flow[row][column] == 0 {
                self.senders[column].push(row);
            }
            self.flow[row][column] += amount;
            let Some(back) = self.search.back_from[row] else { break };
            self.flow[row][back] -= amount;
            if self.flow[row][back] == 0 {
                self.senders[back].retain(|sender| *sender != row);
            }
            column = back;
        }
        self.lacks[target] -= amount;
        amount
    }
}
