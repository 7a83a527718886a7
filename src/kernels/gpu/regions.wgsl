    // A context that acts at none of the workgroup's queries is passed over.
    if thread < TILE {
      var weight = 0.0;
      if first_query + thread < sizes.queries {
        weight = f32(weights[image * sizes.weight_image + context * sizes.queries + first_query + thread]);
      }
      share[thread] = weight;
    }
    workgroupBarrier();
    if thread == 0u {
      var most = 0.0;
      for (var i = 0u; i < TILE; i++) {
        most = max(most, abs(share[i]));
      }
      acts = most;
    }
    if workgroupUniformLoad(&acts) == 0.0 { continue; }
